/* RGB frames to packets: which encoder, how it is set, how planes are filled. For io/libav_sink.c. */
#ifndef GV_IO_LIBAV_ENCODE_H
#define GV_IO_LIBAV_ENCODE_H

#include "io/libav.h"

struct av_codec;
/* The codec called name, or NULL for the container's first that this libav can encode. codecs: names that the container holds,
 * the usual one first, between spaces. Errors: ARGUMENT (unknown, or not for this container), UNSUPPORTED (no encoder). */
gv_status gv_av_codec_find(const struct av_codec **out, const char *name, const char *codecs, const char *path,
                           struct error *e);
/* Those of the names that this libav can encode, between commas: "h264, hevc". Truncated to room. */
void gv_av_codec_list(char *text, size_t room, const char *codecs);
/* FourCC that this codec needs in MP4 and MOV; 0 = the muxer's own. */
unsigned gv_av_codec_tag(const struct av_codec *c);

struct av_encoder {
    const struct av_codec *codec;
    AVCodecContext        *c;
    AVFrame               *frame;
    int                    width, height; /* of what comes; the encoder's may be padded */
    int64_t                count;
    int                    ticks_num, ticks_den; /* frame i has the time i · num / den, rounded, in the encoder's base */
    uint16_t              *wide;                 /* 8 bits that came where more are kept, widened */
};
/* Errors: ARGUMENT (crf, preset, bits), DEVICE (the encoder refuses this size or rate), MEMORY. */
gv_status gv_av_encoder_open(struct av_encoder *n, const struct av_codec *codec, const struct sink_params *p, bool header,
                             struct error *e);
bool      gv_av_encoder_deep(const struct av_encoder *n); /* more than 8 bits are kept */
/* One frame, rgb8 or rgb16 [height, width, 3], the other NULL; packets are then to be fetched from n->c. Errors: DEVICE, MEMORY. */
gv_status gv_av_encoder_send(struct av_encoder *n, const uint8_t *rgb8, const uint16_t *rgb16, const char *path,
                             struct error *e);
void      gv_av_encoder_close(struct av_encoder *n);

#endif
