/* What the pieces of the native kernels share; the theory of operation is in stage.c.
 *
 * Everything here is a pure function of its arguments. Nothing allocates, and nothing checks what the
 * Python side (kernels/native.py) has checked: shapes are consistent, positions are reserved.
 */
#ifndef ODSI_NATIVE_H
#define ODSI_NATIVE_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Of what native.py and this library agree on, tiles and structures; counted up when either changes. */
#define LAYOUT 1

/* Query rows times heads that attention works on at once. */
#define QUERIES_MAX 12

/* Lanes of a register, rows of a matrix in a tile, and positions in a block of keys and values. */
#define LANES 16
/* Columns of a matrix that share a scale. */
#define GROUP 32
#define TILE4_BYTES 320 /* 16 x 32 nibbles, 16 scales, 16 minima */
#define TILE8_BYTES 544 /* 16 x 32 bytes, 16 scales */

enum matrix_kind { MATRIX_F32 = 0, MATRIX_Q4 = 1, MATRIX_Q8 = 2 };

/* A matrix [rows, columns] in tiles of 16 rows; rows are padded with zeros to whole tiles.
 *
 * F32: for each tile, for each column, 16 binary32 values.
 * Q4:  for each tile, for each group of 32 columns: four registers, of which register j holds the
 *      columns 4j..4j+3 of 16 rows in its low nibbles and 4j+16..4j+19 in its high ones; 16 scales d
 *      and 16 minima m in binary16. A weight is d * nibble + m.
 * Q8:  eight registers, of which register j holds columns 4j..4j+3 of 16 rows; 16 scales d. A weight
 *      is d * (byte - 128).
 */
struct matrix {
    int32_t kind, rows, columns, tiles;
    const uint8_t *data;
};

/* Rows on their way into a matrix: as they are, and, for Q4 and Q8, as bytes in groups of 32. A value is
 * scale * (256 * coarse + fine), both signed. One byte a value is where most of the error of a packed model
 * comes from, and most of that from the few groups with large values: those have a second, fine byte, the
 * others have 0 there. Which groups do depends on their row alone. */
struct input {
    const float *rows;  /* [count, columns] */
    int8_t *codes;      /* [count, columns / 32, 2, 32]: the coarse bytes of a group, then the fine ones */
    float *scales;      /* [count, columns / 32] */
    float *sums;        /* [count, columns / 32]: of the group's values as the codes have them */
    uint8_t *is_fine;   /* [count, columns / 32]: whether the fine bytes count */
    int32_t count, columns;
};

struct layer {
    struct matrix query, key, value, attention_output, gate, up, down;
    const float *attention_norm, *feed_forward_norm;     /* [width] */
    const float *query_bias, *key_bias, *value_bias;     /* of the matrix's rows, or NULL */
    const float *query_norm, *key_norm;                  /* [head_size] or NULL */
};

struct stage {
    const struct layer *layers;
    int32_t layers_count, width, feed_forward, heads, kv_heads, head_size;
    float epsilon, attention_scale;
    const float *rotation; /* [context, head_size]: cosine and sine of each pair in turn */
    uint8_t *cache;        /* [blocks, layers, 2, kv_heads, 16 * head_size] */
    int64_t block_bytes;
    int32_t cache_is_f16, threads;
};

/* One row of a batch: which request's state it belongs to, and where in it. */
struct place {
    const int32_t *blocks; /* of the request, in order of position */
    int32_t position;
};

void quantise(const struct input *in);
void multiply(const struct matrix *matrix, const struct input *in, const float *bias, int adds,
              float *out, int32_t stride, int threads);
void attend(const struct stage *stage, int layer, const struct place *places, int count, const float *heads,
            float *out, float *scores, int32_t scores_stride);
void store(const struct stage *stage, int layer, const struct place *place, const float *key,
           const float *value);

/* exp(x) for x <= 88, to 2 units in the last place; 0 below -87; no number of none. The same bits everywhere. */
static inline __m512 exp512(__m512 x) {
    const __m512 low = _mm512_set1_ps(-87.0f);
    __mmask16 is_zero = _mm512_cmp_ps_mask(x, low, _CMP_LT_OQ);
    x = _mm512_max_ps(low, x); /* in this order: the second of two of which one is no number */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504089f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x); /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_maskz_scalef_ps((__mmask16)~is_zero, p, n);
}

#endif
