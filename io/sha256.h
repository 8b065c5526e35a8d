/* SHA-256 of bytes that come in pieces. */
#ifndef GV_IO_SHA256_H
#define GV_IO_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t  block[64];
};
void gv_sha256_open(struct sha256 *h);
void gv_sha256_add(struct sha256 *h, const void *bytes, size_t n);
/* 64 hexadecimal digits and a zero. h is used up. */
void gv_sha256_hex(struct sha256 *h, char out[65]);

#endif
