/* The sound of a source clip goes along into an output, packet by packet and unchanged. For io/libav_sink.c. */
#ifndef GV_IO_LIBAV_AUDIO_H
#define GV_IO_LIBAV_AUDIO_H

#include "io/libav.h"

struct av_audio {
    int              fd; /* -1 = closed; set so before anything else */
    struct av_source source;
    AVStream        *in, *out; /* out NULL: nothing goes along */
    int64_t          start;    /* in in's time base */
    bool             ready;    /* source.packet waits to be written */
};

/* Opens path and adds a stream for its first sound to the muxer, whose header is not yet written. No sound in it, or one that
 * this container cannot hold as it is, is logged, and out stays NULL. Errors: IO, FORMAT, UNSUPPORTED (the file), MEMORY. */
gv_status gv_av_audio_open(struct av_audio *a, AVFormatContext *muxer, const struct sink_params *p, struct error *e);
/* Writes what begins before `until` seconds of the output. Errors: as av_interleaved_write_frame, in *r; the caller knows the
 * file. A source that cannot be read on ends the sound. */
int  gv_av_audio_pump(struct av_audio *a, AVFormatContext *muxer, double until);
void gv_av_audio_close(struct av_audio *a);

#endif
