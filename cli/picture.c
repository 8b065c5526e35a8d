/* Which terminal can what is told from its environment and never asked, because an answer that does not come would leave the
 * caller waiting: kitty, Ghostty and WezTerm have Kitty's protocol; iTerm2, WezTerm and mintty iTerm2's. A multiplexer passes neither
 * on, so inside of tmux or screen it is half-blocks: "▀" with a colour above and one below.
 *
 * iTerm2 takes files, so a picture is wrapped into a PNG whose data are stored and not compressed: nothing here is larger than
 * a few hundred pixels across.
 * Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images, RFC 2083 and RFC 1950. */
#include "picture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS_MOST = 64, ROWS_MOST = 24, ROWS_LEFT = 3, CHUNK = 4096 };

/* ---- which ---- */

static bool is_in(const char *variable, const char *word)
{
    const char *value = getenv(variable);
    return value && strstr(value, word);
}

static enum cli_graphics blocks(void)
{
    if (is_in("COLORTERM", "truecolor") || is_in("COLORTERM", "24bit") || is_in("TERM", "direct"))
        return GRAPHICS_BLOCKS;
    return is_in("TERM", "256color") || is_in("TERM", "kitty") ? GRAPHICS_BLOCKS_256 : GRAPHICS_NONE;
}

static bool chosen(enum cli_graphics *out)
{
    const char *name = getenv("GENVID_GRAPHICS");
    if (!name || !*name)
        return false;
    *out = !strcmp(name, "kitty")    ? GRAPHICS_KITTY
           : !strcmp(name, "iterm")  ? GRAPHICS_ITERM
           : !strcmp(name, "blocks") ? GRAPHICS_BLOCKS
                                     : GRAPHICS_NONE;
    return true;
}

enum cli_graphics cli_graphics_of(int fd)
{
    enum cli_graphics g;
    const char       *plain = getenv("NO_COLOR"), *term = getenv("TERM");
    if (!isatty(fd) || !term || !strcmp(term, "dumb"))
        return GRAPHICS_NONE;
    if (chosen(&g))
        return g;
    if (plain && *plain)
        return GRAPHICS_NONE;
    if (getenv("TMUX") || is_in("TERM", "screen") || is_in("TERM", "tmux"))
        return blocks();
    if (is_in("TERM", "kitty") || is_in("TERM", "ghostty") || getenv("KITTY_WINDOW_ID") || is_in("TERM_PROGRAM", "WezTerm"))
        return GRAPHICS_KITTY;
    if (is_in("TERM_PROGRAM", "iTerm") || is_in("LC_TERMINAL", "iTerm2") || is_in("TERM_PROGRAM", "mintty"))
        return GRAPHICS_ITERM;
    return blocks();
}

/* ---- bytes ---- */

static void base64(FILE *out, const uint8_t *bytes, size_t n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t word =
            (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        putc(letters[word >> 18], out);
        putc(letters[word >> 12 & 63], out);
        putc(i + 1 < n ? letters[word >> 6 & 63] : '=', out);
        putc(i + 2 < n ? letters[word & 63] : '=', out);
    }
}

struct png {
    uint8_t *at;
    size_t   n;
};

static void put(struct png *p, const void *bytes, size_t n)
{
    memcpy(p->at + p->n, bytes, n);
    p->n += n;
}

static void put_word(struct png *p, uint32_t word)
{
    put(p, (const uint8_t[]){ (uint8_t)(word >> 24), (uint8_t)(word >> 16), (uint8_t)(word >> 8), (uint8_t)word }, 4);
}

/* Of the chunk that began at `from`: its name and data. */
static void end_chunk(struct png *p, size_t from)
{
    uint32_t crc = ~0u;
    for (size_t i = from; i < p->n; i++) {
        crc ^= p->at[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    put_word(p, ~crc);
}

/* Rows with their filter byte in stored blocks of 65535 bytes at most, and Adler's sum. */
static void put_rows(struct png *p, const struct cli_pixels *px)
{
    const size_t row = (size_t)px->width * 3 + 1, total = row * (size_t)px->height;
    uint32_t     a = 1, b = 0;
    put(p, "\x78\x01", 2);
    for (size_t i = 0; i < total; i++) {
        const size_t in_block = i % 65535, left = total - i;
        if (!in_block) {
            const uint16_t n = (uint16_t)(left < 65535 ? left : 65535);
            put(p, (const uint8_t[]){ left <= 65535, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8) }, 5);
        }
        const uint8_t byte = i % row ? px->rgb[i / row * px->stride + i % row - 1] : 0;
        put(p, &byte, 1);
        a = (a + byte) % 65521;
        b = (b + a) % 65521;
    }
    put_word(p, b << 16 | a);
}

/* .at is freed with free(); NULL when memory ran out. */
static struct png png_of(const struct cli_pixels *px)
{
    const size_t data = ((size_t)px->width * 3 + 1) * (size_t)px->height, stream = 2 + data + (data + 65534) / 65535 * 5 + 4;
    struct png   p = { .at = malloc(stream + 57) };
    if (!p.at)
        return p;
    put(&p, "\x89PNG\r\n\x1a\n", 8);
    put_word(&p, 13);
    put(&p, "IHDR", 4);
    put_word(&p, (uint32_t)px->width);
    put_word(&p, (uint32_t)px->height);
    put(&p, "\x08\x02\0\0\0", 5);
    end_chunk(&p, 12);
    put_word(&p, (uint32_t)stream);
    put(&p, "IDAT", 4);
    put_rows(&p, px);
    end_chunk(&p, p.n - stream - 4);
    put_word(&p, 0);
    put(&p, "IEND", 4);
    end_chunk(&p, p.n - 4);
    return p;
}

bool cli_picture_write(const char *path, const struct cli_pixels *px)
{
    char       temporary[4200];
    struct png p = png_of(px);
    if (!p.at || (size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary) {
        errno = p.at ? ENAMETOOLONG : ENOMEM;
        free(p.at);
        return false;
    }
    FILE *f = fopen(temporary, "wb");
    bool  ok = f && fwrite(p.at, 1, p.n, f) == p.n;
    if (f && fclose(f) != 0)
        ok = false;
    free(p.at);
    if (ok && rename(temporary, path) == 0)
        return true;
    const int reason = errno;
    remove(temporary);
    errno = reason;
    return false;
}

/* ---- drawing ---- */

struct cells {
    int columns, rows;
};

/* A cell is about twice as high as wide. */
static struct cells fit(FILE *out, const struct cli_pixels *p)
{
    struct winsize w = { 0 };
    int            columns = COLUMNS_MOST, rows = ROWS_MOST;
    if (ioctl(fileno(out), TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
        columns = w.ws_col - 1 < columns ? w.ws_col - 1 : columns;
        rows = w.ws_row - ROWS_LEFT < rows ? w.ws_row - ROWS_LEFT : rows;
    }
    struct cells c = { columns, (int)((int64_t)columns * p->height / p->width / 2) };
    if (c.rows > rows)
        c = (struct cells){ (int)((int64_t)rows * 2 * p->width / p->height), rows };
    c.columns = c.columns < 1 ? 1 : c.columns < columns ? c.columns : columns;
    c.rows = c.rows < 1 ? 1 : c.rows;
    return c;
}

/* The mean of the pixels under one of W x H equal parts. */
static void part_colour(const struct cli_pixels *p, int x, int y, int W, int H, int out[3])
{
    const int x0 = x * p->width / W, y0 = y * p->height / H;
    int       x1 = (x + 1) * p->width / W, y1 = (y + 1) * p->height / H, sum[3] = { 0 };
    x1 = x1 > x0 ? x1 : x0 + 1;
    y1 = y1 > y0 ? y1 : y0 + 1;
    for (int v = y0; v < y1; v++)
        for (int u = x0; u < x1; u++)
            for (int c = 0; c < 3; c++)
                sum[c] += p->rgb[(size_t)v * p->stride + (size_t)u * 3 + (size_t)c];
    for (int c = 0; c < 3; c++)
        out[c] = sum[c] / ((x1 - x0) * (y1 - y0));
}

/* ground: 38 in front, 48 behind. */
static void put_colour(FILE *out, enum cli_graphics g, int ground, const int c[3])
{
    if (g == GRAPHICS_BLOCKS)
        fprintf(out, "\033[%d;2;%d;%d;%dm", ground, c[0], c[1], c[2]);
    else
        fprintf(out, "\033[%d;5;%dm", ground, 16 + (c[0] + 25) / 51 * 36 + (c[1] + 25) / 51 * 6 + (c[2] + 25) / 51);
}

static void draw_blocks(FILE *out, enum cli_graphics g, const struct cli_pixels *p, struct cells c)
{
    for (int y = 0; y < c.rows; y++) {
        for (int x = 0; x < c.columns; x++) {
            int above[3], below[3];
            part_colour(p, x, 2 * y, c.columns, 2 * c.rows, above);
            part_colour(p, x, 2 * y + 1, c.columns, 2 * c.rows, below);
            put_colour(out, g, 38, above);
            put_colour(out, g, 48, below);
            fputs("\xe2\x96\x80", out);
        }
        fputs("\033[0m\033[K\n", out);
    }
}

/* Room for the picture, the cursor at its top. */
static void make_room(FILE *out, struct cells c)
{
    for (int y = 0; y < c.rows; y++)
        putc('\n', out);
    fprintf(out, "\033[%dA", c.rows);
}

/* Raw RGB in chunks of base64; one image, which every new one replaces; C=1: the cursor stays. */
static bool draw_kitty(FILE *out, const struct cli_pixels *p, struct cells c)
{
    const size_t row = (size_t)p->width * 3, n = row * (size_t)p->height;
    uint8_t     *all = malloc(n);
    if (!all)
        return false;
    for (int y = 0; y < p->height; y++)
        memcpy(all + (size_t)y * row, p->rgb + (size_t)y * p->stride, row);
    make_room(out, c);
    for (size_t at = 0; at < n; at += CHUNK / 4 * 3) {
        const size_t part = n - at < CHUNK / 4 * 3 ? n - at : CHUNK / 4 * 3;
        fputs("\033_G", out);
        if (!at)
            fprintf(out, "a=T,f=24,s=%d,v=%d,c=%d,r=%d,i=71,p=1,C=1,q=2,", p->width, p->height, c.columns, c.rows);
        fprintf(out, "m=%d;", at + part < n);
        base64(out, all + at, part);
        fputs("\033\\", out);
    }
    fprintf(out, "\033[%dB\r", c.rows);
    free(all);
    return true;
}

static bool draw_iterm(FILE *out, const struct cli_pixels *px, struct cells c)
{
    struct png p = png_of(px);
    if (!p.at)
        return false;
    make_room(out, c);
    fprintf(out, "\0337\033]1337;File=inline=1;size=%zu;width=%d;height=%d;preserveAspectRatio=0:", p.n, c.columns, c.rows);
    base64(out, p.at, p.n);
    fprintf(out, "\a\0338\033[%dB\r", c.rows);
    free(p.at);
    return true;
}

int cli_picture_draw(FILE *out, enum cli_graphics g, const struct cli_pixels *p)
{
    if (g == GRAPHICS_NONE || p->width < 1 || p->height < 1)
        return 0;
    const struct cells c = fit(out, p);
    if (g == GRAPHICS_KITTY)
        return draw_kitty(out, p, c) ? c.rows : 0;
    if (g == GRAPHICS_ITERM)
        return draw_iterm(out, p, c) ? c.rows : 0;
    draw_blocks(out, g, p, c);
    return c.rows;
}
