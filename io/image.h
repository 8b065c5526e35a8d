/* Pictures in and out. In: PNG (stb), JPEG (TurboJPEG; EXIF orientation applied, grey and CMYK too), other stills and the
 * first frame of clips through libav under a whitelist of formats. The kind is told from the first bytes, never the name.
 * Alpha is composed over white. Limits against hostile files: GV_IMAGE_SIDE, GV_IMAGE_PIXELS, GV_IMAGE_BYTES. */
#ifndef GV_IO_IMAGE_H
#define GV_IO_IMAGE_H

#include "io/frame.h"

enum { GV_IMAGE_SIDE = 16384, GV_IMAGE_PIXELS = 100 << 20, GV_IMAGE_BYTES = 256 << 20 };

/* Errors: IO (cannot be read), FORMAT (empty, truncated, not a picture, not what its first bytes say), UNSUPPORTED (a kind
 * this build cannot read), MEMORY; the message names the file. */
gv_status gv_image_read(struct image *im, const char *path, struct error *e);
/* Turns and mirrors by EXIF's number, 1..8; other numbers change nothing. Errors: MEMORY. */
gv_status gv_image_orient(struct image *im, int orientation, struct error *e);
/* The bytes of a picture file; JPEG with quality 95, 4:4:4. out is freed with free(). comment may be NULL; it goes into
 * PNG's iTXt "Comment" or JPEG's COM. Errors: MEMORY, UNSUPPORTED (JPEG in a build without TurboJPEG). */
enum image_kind { IMAGE_PNG, IMAGE_JPEG };
gv_status gv_image_encode(uint8_t **out, size_t *size, enum image_kind kind, const uint8_t *rgb, int width, int height,
                          const char *comment, struct error *e);
/* By extension: .png, or .jpg/.jpeg. Written under a temporary name and renamed. */
gv_status gv_image_write(const char *path, const uint8_t *rgb, int width, int height, struct error *e);

#endif
