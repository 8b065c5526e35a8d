/* One picture through libav: a still, as one packet to one decoder without any demuxer; or the first frame of a clip. */
#include "io/libav.h"

#include <limits.h>
#include <string.h>

#include "io/image.h"

static const enum AVCodecID still_codecs[] = {
    [MEDIA_WEBP] = AV_CODEC_ID_WEBP, [MEDIA_BMP] = AV_CODEC_ID_BMP,    [MEDIA_TIFF] = AV_CODEC_ID_TIFF,
    [MEDIA_GIF] = AV_CODEC_ID_GIF,   [MEDIA_JPEG] = AV_CODEC_ID_MJPEG,
};
static const char *const still_names[] = {
    [MEDIA_WEBP] = "WebP", [MEDIA_BMP] = "BMP", [MEDIA_TIFF] = "TIFF", [MEDIA_GIF] = "GIF", [MEDIA_JPEG] = "JPEG"
};

static gv_status frame_check(const AVFrame *f, const char *path, struct error *e)
{
    if (f->decode_error_flags || f->flags & AV_FRAME_FLAG_CORRUPT)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged: its first frame cannot be decoded without errors", path);
    return GV_OK;
}

static gv_status still_decode(struct av_source *d, enum media_still kind, const uint8_t *bytes, size_t size, const char *path,
                              struct error *e)
{
    TRY(gv_av_decoder_open(d, still_codecs[kind], NULL, path, e));
    if (size > INT_MAX / 2 || av_new_packet(d->packet, (int)size) < 0)
        return gv_av_no_memory(e, path);
    memcpy(d->packet->data, bytes, size);
    d->packet->flags |= AV_PKT_FLAG_KEY;
    int r = avcodec_send_packet(d->decoder, d->packet);
    if (r >= 0)
        r = avcodec_receive_frame(d->decoder, d->frame);
    if (r == AVERROR(EAGAIN)) {
        avcodec_send_packet(d->decoder, NULL);
        r = avcodec_receive_frame(d->decoder, d->frame);
    }
    if (r == AVERROR_PATCHWELCOME)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s of a sort that this libav cannot read", path, still_names[kind]);
    if (r < 0)
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged or truncated %s, or one larger than the limit of %d pixels", path,
                       still_names[kind], GV_IMAGE_PIXELS);
    return frame_check(d->frame, path, e);
}

gv_status gv_media_read_still(struct image *im, enum media_still kind, const uint8_t *bytes, size_t size, const char *path,
                              struct error *e)
{
    struct av_source d = { 0 };
    gv_status        st = still_decode(&d, kind, bytes, size, path, e);
    if (st == GV_OK)
        st = gv_av_image(im, d.frame, true, true, path, e);
    gv_av_source_close(&d);
    return st;
}

static gv_status clip_read(struct av_source *s, struct image *im, int *orientation, enum media_clip kind, int fd,
                           const char *path, struct error *e)
{
    bool got;
    TRY(gv_av_source_open(s, kind, fd, path, e));
    TRY(gv_av_source_video(s, path, e));
    TRY(gv_av_next_frame(s, &got, path, e));
    if (!got)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged or truncated: no frame of it can be decoded", path);
    TRY(frame_check(s->frame, path, e));
    TRY(gv_av_image(im, s->frame, false, gv_av_centred(s->stream->codecpar->codec_id), path, e));
    *orientation = gv_av_orientation(s->stream);
    const AVRational container = s->stream->sample_aspect_ratio, coded = s->frame->sample_aspect_ratio;
    return gv_av_square_pixels(im, container.num > 0 ? container : coded, path, e);
}

gv_status gv_media_read_clip(struct image *im, int *orientation, enum media_clip kind, int fd, const char *path,
                             struct error *e)
{
    struct av_source s = { 0 };
    const gv_status  st = clip_read(&s, im, orientation, kind, fd, path, e);
    gv_av_source_close(&s);
    return st;
}
