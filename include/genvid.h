/* genvid: video diffusion and vision-language inference as a C library.
 *
 * Open an engine, load a model, open a session, fill a request, call.
 *
 *     gv_engine *e = NULL; gv_model *m = NULL; gv_session *s = NULL; char why[512];
 *     gv_status st = gv_engine_open(NULL, &e, why, sizeof why);
 *     if (!st) st = gv_model_load(e, "models/wan", &m, why, sizeof why);
 *     if (!st) st = gv_session_open(e, &s);
 *     if (!st) {
 *         gv_video_request r;
 *         gv_video_request_init(&r);
 *         r.model = m; r.prompt = "a red fox in snow"; r.output_path = "fox.mp4";
 *         st = gv_video_generate(s, &r);
 *         if (st) fprintf(stderr, "%s\n", gv_session_message(s));
 *     }
 *     gv_session_close(&s); gv_engine_close(&e);
 *
 * An engine owns a device and the models on it and may be shared by threads. A session is one thread's. A request is plain
 * data; nothing in it is kept after the call. Every struct that crosses this border begins with struct_size, set by its
 * _init macro from the caller's own sizeof, so that old callers meet new libraries and the reverse; fields and enum values
 * are only ever appended. The library prints nothing: messages go to the log callback, failures to a code and a sentence. */
#ifndef GENVID_H
#define GENVID_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(GV_BUILD) && defined(__GNUC__)
#define GV_API __attribute__((visibility("default")))
#else
#define GV_API
#endif

#define GV_API_VERSION 1u /* major: the soname */

typedef enum gv_status {
    GV_OK              = 0,
    GV_ERR_ARGUMENT    = -1, /* a field of the request is out of range; the message names it and its range */
    GV_ERR_IO          = -2, /* a file could not be opened, read or written */
    GV_ERR_FORMAT      = -3, /* a media file or document is broken or is not what it claims to be */
    GV_ERR_UNSUPPORTED = -4, /* valid, but not by this build, device or model */
    GV_ERR_MEMORY      = -5, /* host or device; the message says which and how much */
    GV_ERR_DEVICE      = -6, /* the driver or a device library failed */
    GV_ERR_CANCELLED   = -7, /* a callback or gv_session_cancel() asked to stop */
    GV_ERR_INTERNAL    = -8, /* a bug in this library */
    GV_ERR_MODEL       = -9  /* a checkpoint that cannot be used; the message names file and tensor or field */
} gv_status;

GV_API const char *gv_status_name(gv_status status); /* "GV_ERR_IO"; never NULL */
GV_API unsigned    gv_api_version(void);             /* compare with GV_API_VERSION */
GV_API const char *gv_version(void);                 /* "0.1.0" */
GV_API void        gv_free(void *p);                 /* for every string the library hands out; NULL is fine */

/* ---- engine. Thread-safety: safe once open ------------------------------------------------------------------------ */

typedef struct gv_engine gv_engine;
typedef struct gv_model  gv_model; /* owned by its engine */

typedef enum gv_log_level { GV_LOG_ERROR, GV_LOG_WARN, GV_LOG_INFO, GV_LOG_DEBUG } gv_log_level;
typedef void (*gv_log_fn)(void *user, gv_log_level level, const char *message); /* any thread; one line, no newline */

typedef struct gv_engine_params {
    size_t       struct_size;
    const char  *device;        /* "cpu", "cuda"; NULL = the best present */
    int          threads;       /* 1..256; 0 = one per core */
    uint64_t     device_budget; /* bytes of device memory to stay under; 0 = what is free */
    gv_log_level log_level;     /* messages above this level are not made */
    gv_log_fn    log;           /* NULL = silent */
    void        *log_user;
    const char  *precision;     /* "f32", "bf16"; NULL = what the device does fast. Weights and activations between operations */
    const char  *cpu_level;     /* "c", "avx2", "avx512", "avx512bf16": no instruction above it; NULL = all present */
} gv_engine_params;
GV_API void gv_engine_params_init_(gv_engine_params *p, size_t struct_size);
#define gv_engine_params_init(p) gv_engine_params_init_((p), sizeof *(p))

/* Params NULL = defaults. message, if given, receives the reason of a failure. */
GV_API gv_status gv_engine_open(const gv_engine_params *p, gv_engine **out, char *message, size_t message_size);
/* Maps and checks a checkpoint: every tensor's name, type and shape. Uploading and packing wait for the first use.
 * path: a diffusers model directory, or that of a vision-language model (Qwen2.5-VL, Qwen2-VL,
 * LLaVA-OneVision). Errors: IO, MODEL, UNSUPPORTED, MEMORY. */
GV_API gv_status gv_model_load(gv_engine *e, const char *path, gv_model **out, char *message, size_t message_size);
GV_API void      gv_model_unload(gv_model **model);   /* no session may be using it; NULL is fine */
GV_API void      gv_engine_close(gv_engine **engine); /* after its sessions; unloads its models; NULL is fine */

/* ---- session. Thread-safety: one thread at a time, but for cancel --------------------------------------------------- */

typedef struct gv_session gv_session;
GV_API gv_status   gv_session_open(gv_engine *e, gv_session **out);
GV_API const char *gv_session_message(const gv_session *s); /* of the last failed call, until the next; "" if none */
GV_API void        gv_session_cancel(gv_session *s);        /* any thread, or a signal handler; holds for the running call */
GV_API void        gv_session_close(gv_session **session);  /* NULL is fine */

/* ---- pixels and progress -------------------------------------------------------------------------------------------- */

typedef enum gv_view { GV_VIEW_FLAT, GV_VIEW_CUBE_3X2, GV_VIEW_EQUIRECT } gv_view;
typedef enum gv_pixel_format { GV_PIXEL_RGB8 } gv_pixel_format; /* sRGB-encoded BT.709 primaries, 3 bytes a pixel */

typedef struct gv_frame {
    size_t          struct_size;
    gv_pixel_format format;
    const void     *pixels; /* valid during the callback */
    ptrdiff_t       stride; /* bytes from row to row */
    int             width, height;
    int64_t         index;   /* from 0, in presentation order */
    double          seconds; /* presentation time */
    gv_view         view;
    int             preview; /* 1 = a rough look at an unfinished frame, a pixel for each latent: smaller than the clip */
} gv_frame;
typedef int (*gv_frame_fn)(void *user, const gv_frame *frame); /* non-zero cancels */

typedef struct gv_progress {
    size_t      struct_size;
    const char *stage;       /* "load", "text", "image", "prompt", "preview", "denoise", "decode", "encode": stable words */
    int64_t     done, total; /* in the stage's own units: steps, latent frames */
    double      seconds;     /* since the request began */
} gv_progress;
typedef int (*gv_progress_fn)(void *user, const gv_progress *progress); /* non-zero cancels */

typedef struct gv_option {
    const char *name, *value; /* as gv_model_options_json lists them */
} gv_option;

/* ---- text or image to video ----------------------------------------------------------------------------------------- */

/* All frames of a clip are made. path: a file that holds them and can be read (gv_caption, gv_media_probe), under a name that is gone
 * when the call returns; NULL where there is none: no output_path, stdout, bare RGB, a sequence of pictures. *note, if set, is JSON or
 * any text for the recipe and the report, borrowed until gv_video_generate returns. Sessions other than the one that is generating
 * may be used. Non-zero cancels, and there is no file. */
typedef int (*gv_made_fn)(void *user, const char *path, const char **note);

typedef struct gv_video_request {
    size_t           struct_size;
    const gv_model  *model;
    const char      *prompt;          /* UTF-8; may be "" */
    const char      *negative_prompt; /* UTF-8 or NULL; read only where guidance is not 1 */
    const char      *first_image;     /* path of a picture that the clip begins with, or NULL */
    const char      *last_image;      /* path of a picture that the clip ends with, or NULL */
    int              width, height;   /* pixels; 0 = the model's own, keeping first_image's proportions if only one is given */
    int              frames;          /* 0 = the model's own; rounded to the model's grid, with a log line */
    double           fps;             /* 0 = the model's own */
    int              steps;           /* 0 = the model's own */
    double           guidance;        /* < 0 = the model's own; 1 = off */
    double           shift;           /* sigma shift; 0 = the model's own */
    uint64_t         seed;
    const char      *solver; /* "unipc", "euler", "dpm++"; NULL = the model's own */
    const char      *noise;  /* NULL = "genvid"; "torch-cpu", "torch-cuda[:SMSxTHREADS]": as torch.randn of a fresh generator */
    gv_view          view;
    const gv_option *options;
    size_t           option_count;
    const char      *output_path; /* see gv_output_formats; "-" with a format option is stdout; NULL = callback only */
    gv_frame_fn      on_frame;    /* may be NULL */
    gv_progress_fn   progress;    /* may be NULL */
    void            *user;        /* for both; they come on the calling thread, with no lock held */
    int              preview_every; /* denoising steps between looks at the middle frame, which go to on_frame; 0 = none */
    gv_made_fn       on_made;       /* may be NULL */
} gv_video_request;
GV_API void gv_video_request_init_(gv_video_request *r, size_t struct_size);
#define gv_video_request_init(r) gv_video_request_init_((r), sizeof *(r))

/* What a request would take. Loads no weights and computes nothing: a dry run on the null device. */
typedef struct gv_estimate {
    size_t   struct_size;
    uint64_t device_bytes; /* peak of the library's own allocations, weights included */
    uint64_t weight_bytes; /* of these, weights */
    int64_t  tokens;       /* of one denoising forward */
    double   flops;        /* of the whole request */
    int      width, height, frames, steps; /* as they will be used */
    double   fps;
} gv_estimate;
GV_API void gv_estimate_init_(gv_estimate *e, size_t struct_size);
#define gv_estimate_init(e) gv_estimate_init_((e), sizeof *(e))
GV_API gv_status gv_video_estimate(gv_session *s, const gv_video_request *r, gv_estimate *out);

/* Returns when the last frame has been delivered, or at the first failure. The same request on the same device gives the
 * same frames, whatever the thread count. A failed or cancelled call leaves no output file.
 * Errors: ARGUMENT, UNSUPPORTED, MEMORY, IO, FORMAT, DEVICE, CANCELLED. */
GV_API gv_status gv_video_generate(gv_session *s, const gv_video_request *r);

/* ---- calibration: what shortcuts may leave out of one model ---------------------------------------------------------- */

/* Renders some prompts exactly, without frames, and writes what it finds into genvid.calibration.safetensors beside the model:
 * for a whole clip of this size, length and steps the blocks of keys that matter (attention=calibrated) and how its steps change
 * (cache=magcache); with the option causal, heads that cannot reuse their history (cache=flashblock). */
typedef struct gv_calibrate_request {
    size_t                  struct_size;
    const gv_video_request *video;   /* model, size, length, steps, seed, causal; its prompt and outputs are not used */
    const char *const      *prompts; /* NULL = five of the library's own */
    size_t                  prompt_count;
    double                  mass;   /* of the softmax that the chosen blocks hold; 0 = 0.9 */
    double                  cosine; /* heads whose history's output keeps less read it anew; 0 = 0.85 */
    double                  lse;    /* and those whose LSE moves by more; 0 = 0.05 */
} gv_calibrate_request;
GV_API void gv_calibrate_request_init_(gv_calibrate_request *r, size_t struct_size);
#define gv_calibrate_request_init(r) gv_calibrate_request_init_((r), sizeof *(r))
/* *json: {path, prompts, density, fresh_heads, ratios, layers}, freed with gv_free. layers: of a whole clip the share of the softmax
 * that the best 10, 25 and 50% of key blocks hold, [{held: [3]}]; of causal blocks the cosine between a pass's attention and the
 * pass before's, to the history and to its own block, [{history_cosine, own_cosine}]. Errors: as gv_video_generate. */
GV_API gv_status gv_calibrate(gv_session *s, const gv_calibrate_request *r, char **json);

/* ---- pictures and clips to text --------------------------------------------------------------------------------------- */

typedef int (*gv_text_fn)(void *user, const char *utf8, size_t bytes); /* whole characters, as they come; non-zero cancels */

typedef struct gv_caption_request {
    size_t             struct_size;
    const gv_model    *model;
    const char *const *media; /* paths of pictures and clips, shown together, in this order */
    size_t             media_count;
    const char        *question;   /* UTF-8; NULL or "" asks for a description. Control tokens in it are plain text */
    int                max_tokens; /* 0 = 256 */
    double             temperature; /* 0 = greedy: the likeliest token each time */
    int                top_k;       /* draw among the k likeliest; 0 = all */
    double             top_p;       /* draw among the likeliest that together reach this share; 0 or 1 = all */
    double             repetition_penalty; /* 0 = the model's own; 1 = off */
    uint64_t           seed;
    gv_text_fn         on_text;  /* may be NULL */
    gv_progress_fn     progress; /* may be NULL; stages "image", "prompt", "text", "explain" */
    void              *user;     /* for both; they come on the calling thread, with no lock held */
    double             fps;      /* frames of a clip looked at a second; 0 = the model's own */
    int                max_frames; /* of a clip, looked at; 0 = the model's own */
    int    picture_tokens;         /* at most for each picture and clip, which is made smaller for it; 0 = the model's own */
    double start, end;             /* of the section of each clip that is looked at, in seconds; end 0 = its end */
    const char        *prune;                  /* fewer picture tokens (VFlowOpt), approximate: "50", "25" or "10" per cent, or
                                          "keep=R1/R2/R3,cell=A,sink=T,entropy=W"; NULL = none. A per cent that
                                          gv_calibrate_pruning found settings for means those */
    int                prune_receipt;          /* 1 = run the whole prompt too and report how near the pruned one came */
    int                recycle; /* keys that most steps of the text read, approximate (Recycled Attention): those that the last
                                      step which read all read most, and newer ones; 0 = all, always */
    int                recycle_every; /* steps from one that reads all to the next; 0 = 50 */
    int                pages; /* keys that a step of the text reads, approximate (LServe): those pages of 64 whose bounds are
                                    largest, and the first and newest; 0 = all. Not with recycle */
    int                pages_every; /* steps from one choice of pages to the next; 0 = 4 */
    const char *explain; /* folder for a heat map of each word over the pictures (PNG) and clips (MP4), explain.json and index.html;
                                      made if absent. The text stays the same; not with prune, recycle or pages. NULL = none */
    double      paint; /* raise the scores of the quarter of each picture's tokens that matters most by this share of their size
                                      whenever a word is chosen (PAINT), against things said that are not there; its authors' is
                                      0.7; 0 = off. Not with prune, recycle, pages or explain */
    double      paint_summary;  /* with paint: the share for tokens that stand out among all; 0 = 0.4 */
    double      picture_factor; /* scores of picture tokens times this in the decoder's first layers (DARA); 0 or 1 = off */
    int         picture_factor_layers; /* so many layers; 0 = 1 */
} gv_caption_request;
GV_API void gv_caption_request_init_(gv_caption_request *r, size_t struct_size);
#define gv_caption_request_init(r) gv_caption_request_init_((r), sizeof *(r))

/* What a request would take. Opens its media and the model's files, loads no weights and computes nothing. */
typedef struct gv_caption_cost {
    size_t   struct_size;
    uint64_t device_bytes;   /* peak of the library's own allocations, weights included */
    uint64_t kept_bytes;     /* of these, keys and values of the conversation */
    int64_t  picture_tokens; /* of all pictures and clips */
    int64_t  prompt_tokens;  /* these and the words around them */
    int64_t  context;        /* tokens that the model was made for */
    int      max_tokens;     /* of the text */
    int      frames;         /* looked at, of all pictures and clips */
    double   seconds;        /* length of the first clip; 0 = there is none */
} gv_caption_cost;
GV_API void gv_caption_cost_init_(gv_caption_cost *c, size_t struct_size);
#define gv_caption_cost_init(c) gv_caption_cost_init_((c), sizeof *(c))
/* Errors: as gv_caption. */
GV_API gv_status gv_caption_estimate(gv_session *s, const gv_caption_request *r, gv_caption_cost *out);

/* *text: the whole answer, freed with gv_free; NULL on failure. A clip is read as a stream: its length takes no memory, and what
 * will be looked at is logged (INFO) before anything is computed. The same request on the same device gives the same text,
 * whatever the thread count. Errors: ARGUMENT, UNSUPPORTED, MEMORY, IO, FORMAT, DEVICE, CANCELLED. */
GV_API gv_status gv_caption(gv_session *s, const gv_caption_request *r, char **text);

/* ---- calibration: which of a picture's tokens a captioning model can do without -------------------------------------- */

/* Chooses VFlowOpt's settings for one model and one budget (arXiv 2508.05211): of `trials` settings those under which the decoder's
 * last state before the first word is most like that of the whole prompt, mean of the cosine over the media, by Bayesian
 * optimisation. They go into genvid.pruning.json in the model's folder, where the prune of a caption request finds them by
 * their per cent; those of other budgets stay. */
typedef struct gv_pruning_request {
    size_t             struct_size;
    const gv_model    *model;
    const char *const *media; /* paths of pictures and clips, each looked at alone; the authors take 30, without any label */
    size_t             media_count;
    double             percent; /* of the picture tokens, mean over the decoder's layers: 1 to 99; 0 = 25 */
    int                trials;  /* 2 to 1000; 0 = 50 */
    int entropy; /* 1 = search the weight of detail too, -1 to 1; 0 = it is 0, as in all that the authors released */
    uint64_t           seed;
    gv_progress_fn     progress; /* may be NULL; stage "calibrate", in passes over one picture or clip */
    void              *user;
} gv_pruning_request;
GV_API void gv_pruning_request_init_(gv_pruning_request *r, size_t struct_size);
#define gv_pruning_request_init(r) gv_pruning_request_init_((r), sizeof *(r))
/* *json: {path, percent, keep: [3], cell, sink, entropy, likeness, published_likeness, media, trials}, freed with gv_free.
 * published_likeness: of the authors' settings for the nearest of their budgets. Errors: as gv_caption. */
GV_API gv_status gv_calibrate_pruning(gv_session *s, const gv_pruning_request *r, char **json);

/* ---- what is here: JSON text, freed with gv_free; NULL when memory ran out -------------------------------------------- */

GV_API char *gv_session_report(const gv_session *s);     /* the last render: settings, stages, seconds, bytes, FLOPs, receipt */
GV_API char *gv_model_describe(const gv_model *m);       /* family, parts, sizes, defaults, vocabulary if it has one */
/* What one text asks of a clip and another, a caption, says of it, by the kinds of words in the model's genvid.json (field slots):
 * {"slots": [{"slot", "asked", "read" or null, "agrees"}], "asked": n, "agree": n}, freed with gv_free. What is not asked for is left
 * out; without that field there are none. Errors: ARGUMENT, MEMORY. */
GV_API gv_status gv_model_compare(const gv_model *m, const char *asked, const char *read, char **json);
GV_API char *gv_model_options_json(const gv_model *m);   /* [{name, type, range, default, help}] */
/* Values of the options "attention" and "cache": [{kind, name, help, options: [{name, min, max, default, help}]}]. Kind "text": masks
 * of text alone, which gv_engine_bench_attention measures and no clip can use. */
GV_API char *gv_shortcuts_describe(void);
GV_API char *gv_devices_json(void);                      /* [{name, description}] */
GV_API char *gv_output_formats(void);                    /* [{extension, description, codecs}] of this build */
/* *json, freed with gv_free: {kind, width, height, fps, seconds, codec, sound, recipe}: what a media file says of itself, and the
 * recipe that genvid left in it, or null: prompt, every setting, hashes of the model and of the frames. Decodes nothing.
 * message, if given, receives the reason of a failure. Errors: ARGUMENT, IO, FORMAT, UNSUPPORTED, MEMORY. */
GV_API gv_status gv_media_probe(const char *path, char **json, char *message, size_t message_size);
/* Operation rates on the engine's device: {"linear_tflops": ..., ...}; takes about `seconds`. */
GV_API char *gv_engine_bench(gv_engine *e, double seconds);
/* Attention masks x lengths from 4096 to 131072, as many as fit the time: {rows: [{mask, tokens, density, choose_ms, attend_ms, ...}]} */
GV_API char *gv_engine_bench_attention(gv_engine *e, double seconds);

#ifdef __cplusplus
}
#endif
#endif
