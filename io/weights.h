/* Named tensors of a checkpoint, bound to the fields of a model's structs by a table, and put on the device when first used.
 *
 *   checkpoint   one safetensors file, or the shards an index lists            mapped, checked
 *   bind         rows of (name, field, form, shape) → tensors with shapes      nothing read yet
 *   pin          the first user uploads: converted and packed by the device    resident until dropped
 *   fetch        a layer on its way into a forward pass                        resident: its own struct; streamed: prepared
 *                                                                              into the run's scratch, from the map
 *
 * The file's own bytes are mapped and never copied on the host; a weight exists once more, in the device's order. A model
 * whose weights do not fit the budget streams its layers: the same bytes, prepared again at each fetch.
 *
 * Threads: bind before sharing; pin, unpin and fetch are safe from any thread. */
#ifndef GV_IO_WEIGHTS_H
#define GV_IO_WEIGHTS_H

#include "core/run.h"

struct checkpoint;
struct st_entry;

/* Where another layout keeps one of our tensors: its name there, and which of so many equal parts of its rows. */
struct stored_name {
    char text[256];
    int  part, parts; /* 0 of 1: all of it */
};
typedef bool (*gv_name_map)(struct stored_name *out, const char *name, int param); /* false: no name there */

/* dir/stem.safetensors, or the shards of dir/stem.safetensors.index.json. A missing shard is named.
 * Errors: IO, MODEL, MEMORY. */
gv_status              gv_checkpoint_open(struct checkpoint **out, const char *dir, const char *stem, struct error *e);
/* One file, its format told from its content. Errors: IO, MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_checkpoint_open_file(struct checkpoint **out, const char *path, struct error *e);
/* Before binding and sharing: names that are not found are asked for by map's answer as well. param goes to map. */
void gv_checkpoint_rename(struct checkpoint *c, gv_name_map map, int param);
/* Before binding and sharing: finds which prefix of those in use ("model.diffusion_model.", "generator_ema.model.") the names
 * have, by one that must be there, and strips it from then on. False: `probe` is there with no known prefix. */
bool                   gv_checkpoint_strip(struct checkpoint *c, const char *probe);
struct checkpoint     *gv_checkpoint_share(struct checkpoint *c); /* one more owner; each closes */
void                   gv_checkpoint_close(struct checkpoint **c);
const struct st_entry *gv_checkpoint_find(const struct checkpoint *c, const char *name); /* NULL if absent */
const char            *gv_checkpoint_path(const struct checkpoint *c);                   /* for messages */
size_t                 gv_checkpoint_bytes(const struct checkpoint *c);

enum weight_form {
    FORM_VECTOR,     /* f32 on the device, any shape flattened: biases, norms, modulation tables */
    FORM_LINEAR,     /* [M, ...] → [M, K] for gv_linear, run->compute */
    FORM_LINEAR_F32, /* the same in f32: small products whose rounding would be felt everywhere */
    FORM_CONV,       /* [O, C, (kt,) kh, kw] → [O, kt, kh, kw, C] for gv_conv, run->compute */
    FORM_TABLE       /* [V, D] for gv_gather, in the file's own type */
};

struct weight_row {
    const char      *name;   /* after the prefix */
    size_t           offset; /* of the struct tensor in the layer's struct */
    enum weight_form form;
    int8_t           rank;
    int8_t           dim[5]; /* wanted shape: > 0 an index into the model's sizes; <= 0 the number -dim itself */
    bool             optional;
};
#define N_ROWS(rows) ((int)(sizeof(rows) / sizeof((rows)[0])))

struct weights;
/* Shares the checkpoint: the caller still closes its own. */
gv_status gv_weights_open(struct weights **out, struct checkpoint *c, struct device *d, enum dtype compute, struct error *e);
void      gv_weights_close(struct weights **w);

/* Bind a layer: every row's tensor is found by prefix + name, its shape compared, its field in *layer given shape and final
 * type. Optional rows that are absent leave an absent tensor. *layer must outlive the weights; bound again at once, it
 * takes further rows.
 * Errors: MODEL: file, tensor, shape wanted, shape found. */
gv_status gv_weights_bind(struct weights *w, const char *prefix, const struct weight_row *rows, int n, const int64_t *sizes,
                          void *layer, struct error *e);

/* What the checkpoint holds, as a hash: for every tensor in the order of names its name, type and shape, and 64 bytes from its
 * middle, or all of them (full: reads the whole file). The same tensors in other shards have the same hash. Hexadecimal. */
void gv_weights_hash(const struct weights *w, bool full, char out[65]);

size_t gv_weights_file_bytes(const struct weights *w); /* of the tensors in the files */
size_t gv_weights_bytes(const struct weights *w); /* on the device when all are resident */

/* Begin to use: uploads what is not resident yet; of a streamed model only the first layer bound. On the null device: counts.
 * Errors: MEMORY. */
gv_status gv_weights_pin(struct weights *w, struct device *d, bool stream, struct error *e);
/* The same until *cancel is set, which is seen before each layer and leaves nothing pinned: CANCELLED. NULL = never. */
gv_status gv_weights_pin_unless(const atomic_bool *cancel, struct weights *w, struct device *d, bool stream, struct error *e);
/* End the use. drop: free the device's copy unless somebody else pins it. */
void gv_weights_unpin(struct weights *w, struct device *d, bool stream, bool drop);
/* Bytes on the device now; idle: only if nobody pins them, else 0. */
size_t gv_weights_resident(struct weights *w, bool idle);
void   gv_weights_drop(struct weights *w); /* frees the device's copy unless somebody pins it */

/* The layer to compute with: layer itself when resident, else *copy, prepared in scratch that the caller releases by mark.
 * bytes: of the layer's struct. */
const void *gv_weights_fetch(struct run *r, struct weights *w, const void *layer, void *copy, size_t bytes);

#endif
