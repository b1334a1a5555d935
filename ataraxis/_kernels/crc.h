/* CRC-32 (IEEE), as zlib.crc32, eight bytes at a time (Kounavis & Berry, 2005): for the headers and small payloads of
 * kernels. Long payloads go to a faster library, by the bridge. */
#ifndef AX_CRC_H
#define AX_CRC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t ax_crc_table[8][256];

/* Called once, when the kernel is loaded: the same numbers every time. */
static inline void ax_crc_prepare(void)
{
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        ax_crc_table[0][n] = c;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int k = 1; k < 8; k++)
            ax_crc_table[k][n] = ax_crc_table[0][ax_crc_table[k - 1][n] & 0xFF] ^ (ax_crc_table[k - 1][n] >> 8);
}

static inline uint32_t ax_crc32(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;
    uint32_t c = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= c;
        c = ax_crc_table[7][low & 0xFF] ^ ax_crc_table[6][low >> 8 & 0xFF] ^
            ax_crc_table[5][low >> 16 & 0xFF] ^ ax_crc_table[4][low >> 24] ^
            ax_crc_table[3][high & 0xFF] ^ ax_crc_table[2][high >> 8 & 0xFF] ^
            ax_crc_table[1][high >> 16 & 0xFF] ^ ax_crc_table[0][high >> 24];
    }
    for (; n; n--, p++)
        c = ax_crc_table[0][(c ^ *p) & 0xFF] ^ (c >> 8);
    return ~c;
}

#endif
