#include "tests/fixture.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *must(void *p, const char *what)
{
    if (p)
        return p;
    fprintf(stderr, "fixture: %s\n", what);
    exit(2);
}

/* ---- the counter generator ---- */

static uint64_t name_hash(const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        h = (h ^ *c) * 0x100000001B3u;
    return h;
}

void fixture_fill(float *out, const char *name, int64_t n, float scale, float offset)
{
    uint64_t h = name_hash(name);
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = h + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        float          u = (float)((int64_t)(z >> 40) - (1 << 23)) * 0x1p-23f;
        volatile float product = u * scale; /* rounded on its own: no fused multiply-add */
        out[i] = product + offset;
    }
}

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

/* Round to nearest even; weights here are neither huge nor subnormal in f16. */
static uint16_t to_f16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t sign = u >> 16 & 0x8000, magnitude = u & 0x7FFFFFFF;
    if (magnitude < 0x38800000) /* below 2^-14 */
        return (uint16_t)sign;
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - 0x38000000) >> 13);
}

static void *typed(float *values, int64_t n, enum dtype type)
{
    if (type == GV_F32)
        return values;
    uint16_t *half = must(malloc((size_t)n * 2), "memory");
    for (int64_t i = 0; i < n; i++)
        half[i] = type == GV_BF16 ? to_bf16(values[i]) : to_f16(values[i]);
    free(values);
    return half;
}

/* ---- manifests → safetensors ---- */

static int read_manifest(const char *path, struct st_entry **out, enum dtype type)
{
    FILE *f = must(fopen(path, "r"), path);
    char  line[1024];
    int   n = 0;
    *out = NULL;
    while (fgets(line, sizeof line, f)) {
        *out = must(realloc(*out, (size_t)(n + 1) * sizeof **out), "memory");
        struct st_entry *t = &(*out)[n++];
        char            *save, *name = strtok_r(line, "\t", &save), *dims = strtok_r(NULL, "\t", &save);
        float   scale = strtof(strtok_r(NULL, "\t", &save), NULL), offset = strtof(strtok_r(NULL, "\t\n", &save), NULL);
        int64_t count = 1;
        *t = (struct st_entry){ .name = must(strdup(name), "memory"), .type = type };
        for (char *d = strtok_r(dims, ",", &save); d; d = strtok_r(NULL, ",", &save))
            count *= t->dim[t->rank++] = atoll(d);
        float *values = must(malloc((size_t)count * sizeof *values), "memory");
        fixture_fill(values, name, count, scale, offset);
        t->data = typed(values, count, type);
        t->bytes = gv_dtype_bytes(type, count);
    }
    fclose(f);
    return n;
}

static void check(gv_status status, const struct error *e)
{
    if (status) {
        fprintf(stderr, "fixture: %s\n", e->text);
        exit(2);
    }
}

/* Entries [from, to) into one shard, and their names into the index. */
static void write_shard(FILE *index, const char *dst, const char *stem, const struct st_entry *t, int from, int to, int shard,
                        int shards)
{
    struct error e = { 0 };
    char         path[2048];
    snprintf(path, sizeof path, "%s/%s-%05d-of-%05d.safetensors", dst, stem, shard, shards);
    check(gv_safetensors_write(path, t + from, to - from, &e), &e);
    for (int i = from; i < to; i++)
        fprintf(index, "%s\"%s\": \"%s-%05d-of-%05d.safetensors\"", i ? ",\n" : "", t[i].name, stem, shard, shards);
}

static void write_shards(const char *dst, const char *stem, const struct st_entry *t, int n, size_t shard_bytes)
{
    char path[2048];
    int  starts[1001] = { 0 }, shards = 1;
    for (int i = 0, from = 0; i < n; i++) {
        size_t bytes = 0;
        for (int k = from; k <= i; k++)
            bytes += t[k].bytes;
        if (bytes > shard_bytes && i > from && shards < 1000)
            starts[shards++] = from = i;
    }
    starts[shards] = n;
    snprintf(path, sizeof path, "%s/%s.safetensors.index.json", dst, stem);
    FILE *index = must(fopen(path, "w"), path);
    fprintf(index, "{\"metadata\": {}, \"weight_map\": {\n");
    for (int i = 0; i < shards; i++)
        write_shard(index, dst, stem, t, starts[i], starts[i + 1], i + 1, shards);
    fprintf(index, "}}\n");
    fclose(index);
}

static void make_weights(const char *dst, const char *folder, const char *manifest, enum dtype type, size_t shard_bytes)
{
    struct st_entry *t;
    struct error     e = { 0 };
    char             path[2048];
    const char      *stem = strstr(folder, "encoder") || strstr(folder, "umt5") || strstr(folder, "clip") ||
                               strstr(folder, "qwen") || strstr(folder, "llava")
                                ? "model"
                                : "diffusion_pytorch_model";
    int n = read_manifest(manifest, &t, type);
    if (shard_bytes) {
        write_shards(dst, stem, t, n, shard_bytes);
    } else {
        snprintf(path, sizeof path, "%s/%s.safetensors", dst, stem);
        check(gv_safetensors_write(path, t, n, &e), &e);
    }
    for (int i = 0; i < n; i++) {
        free(t[i].name);
        free((void *)(uintptr_t)t[i].data);
    }
    free(t);
}

/* ---- folders ---- */

static void copy_file(const char *dst, const char *src)
{
    FILE  *in = must(fopen(src, "rb"), src), *out = must(fopen(dst, "wb"), dst);
    char   block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, in)) > 0)
        must(fwrite(block, 1, n, out) == n ? block : NULL, dst);
    fclose(in);
    fclose(out);
}

/* genvid.json of a trained model, beside random weights: it may not go on saying that they are trained. */
static void copy_sidecar(const char *dst, const char *src)
{
    static const char claim[] = "\"weights\": \"trained\"";
    char              text[65536];
    FILE             *in = must(fopen(src, "rb"), src), *out = must(fopen(dst, "wb"), dst);
    text[fread(text, 1, sizeof text - 1, in)] = 0;
    must(feof(in) ? text : NULL, src);
    char *at = strstr(text, claim);
    if (at)
        fprintf(out, "%.*s\"weights\": \"random\"%s", (int)(at - text), text, at + sizeof claim - 1);
    else
        fputs(text, out);
    fclose(in);
    fclose(out);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

static bool is_config(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (!strcmp(dot, ".json") || !strcmp(dot, ".model") || !strcmp(dot, ".txt")) && !strstr(name, ".safetensors") &&
           strcmp(name, "request.json");
}

void fixture_model(const char *dst, const char *src, const char *manifests, enum dtype type, size_t shard_bytes)
{
    char           from[1024], to[1024], manifest[1024];
    struct dirent *d;
    mkdir(dst, 0777);
    DIR *folder = must(opendir(src), src);
    while ((d = readdir(folder))) {
        if (d->d_name[0] == '.')
            continue;
        snprintf(from, sizeof from, "%s/%s", src, d->d_name);
        snprintf(to, sizeof to, "%s/%s", dst, d->d_name);
        snprintf(manifest, sizeof manifest, "%s/%s", manifests ? manifests : src, d->d_name);
        if (is_folder(from) && (strstr(d->d_name, "coder") || strstr(d->d_name, "former") || strstr(d->d_name, "vae") ||
                                strstr(d->d_name, "sch") || strstr(d->d_name, "tok") || strstr(d->d_name, "image")))
            fixture_model(to, from, manifest, type, shard_bytes);
        else if (!is_folder(from) && is_config(d->d_name))
            (strcmp(d->d_name, "genvid.json") ? copy_file : copy_sidecar)(to, from);
    }
    closedir(folder);
    snprintf(manifest, sizeof manifest, "%s/manifest.tsv", manifests ? manifests : src);
    if (!access(manifest, R_OK))
        make_weights(dst, strrchr(src, '/') ? strrchr(src, '/') : src, manifest, type, shard_bytes);
}

void fixture_sidecar(const char *dir, const char *json)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/genvid.json", dir);
    FILE *f = must(fopen(path, "w"), path);
    fputs(json, f);
    fclose(f);
}

char *fixture_temp(char path[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(path, 256, "%s/genvid-test-XXXXXX", base ? base : "/tmp");
    return must(mkdtemp(path), path);
}

void fixture_remove(const char *path)
{
    DIR *folder = opendir(path);
    if (folder) {
        struct dirent *d;
        char           child[1024];
        while ((d = readdir(folder))) {
            if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
                continue;
            snprintf(child, sizeof child, "%s/%s", path, d->d_name);
            fixture_remove(child);
        }
        closedir(folder);
    }
    remove(path);
}

/* ---- goldens ---- */

void golden_open(struct golden *g, const char *folder)
{
    char         path[1024];
    struct error e = { 0 };
    snprintf(path, sizeof path, "%s/%s/io.safetensors", GV_TEST_DATA, folder);
    check(gv_tensor_file_open(&g->st, path, &gv_file_safetensors, &e), &e);
}

void golden_close(struct golden *g)
{
    gv_tensor_file_close(&g->st);
}

bool golden_has(const struct golden *g, const char *name)
{
    return gv_tensor_file_find(&g->st, name);
}

const float *golden_get(const struct golden *g, const char *name, int64_t *count)
{
    const struct st_entry *t = gv_tensor_file_find(&g->st, name);
    must(t ? (void *)(uintptr_t)t : NULL, name);
    if (count)
        *count = (int64_t)(t->bytes / 4);
    return t->data;
}

float golden_number(const struct golden *g, const char *name)
{
    return golden_get(g, name, NULL)[0];
}

double relative_error(const float *a, const float *b, int64_t n)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]), m = fabs((double)b[i]);
        worst = d > worst || isnan(d) ? (isnan(d) ? INFINITY : d) : worst;
        largest = m > largest ? m : largest;
    }
    return worst / largest;
}

double psnr(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return 20 * log10(2 / fmax(sqrt(sum / (double)n), 1e-12));
}

void channels_last(float *out, const float *in, int64_t C, int64_t T, int64_t H, int64_t W)
{
    int64_t n = T * H * W;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < C; c++)
            out[i * C + c] = in[c * n + i];
}

void channels_first(float *out, const float *in, int64_t C, int64_t T, int64_t H, int64_t W)
{
    int64_t n = T * H * W;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < C; c++)
            out[c * n + i] = in[i * C + c];
}
