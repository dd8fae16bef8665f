/* Rows times a packed matrix.
 *
 * Every output is one chain of operations in the order of the columns, whatever rows are multiplied
 * with it and whichever thread does it: so the bits of a row do not depend on its batch, on how a
 * prompt is cut in steps, or on the number of threads. Rows go through in blocks of up to 8, for which
 * a tile is unpacked once; what is left goes through the same code with fewer rows.
 */
#include <math.h>

#include "native.h"

#define ROWS_MAX 8

/* A group has fine bytes if its largest value squared is above this share of the mean over the groups of its
 * row. At 1/2 some 40 % have them, and the divergence from binary32 is a tenth of what coarse bytes alone
 * leave (SmolLM2-135M: KL 3.9e-3 without, 3.4e-4 so, 7e-7 with fine bytes everywhere). */
#define FINE_SHARE 0.5f

static inline __m128i bytes_of(__m512i numbers) { return _mm512_cvtsepi32_epi8(numbers); }

/* A maximum passes over what is no number, and a code can not say that it is none: the scale does. */
static inline float peak_of(const float *values) {
    const __m512 low = _mm512_loadu_ps(values), high = _mm512_loadu_ps(values + LANES);
    if (_mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q)) return NAN;
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
}

/* One group of 32 values with the largest magnitude ``peak``. */
static inline void quantise_group(const struct input *in, size_t g, float peak, int is_fine) {
    const float *values = in->rows + g * GROUP;
    /* The inverse of less would leave binary32: such a group is 0. */
    const __m512 inverse = _mm512_set1_ps(peak > 1e-33f ? 127.0f * 256.0f / peak : 0.0f);
    /* What is no number converts to the smallest integer, and a sum of those has none. */
    const __m512i half = _mm512_set1_epi32(128), least = _mm512_set1_epi32(-127 * 256);
    __m128i *codes = (__m128i *)(in->codes + g * 2 * GROUP);
    __m512i sum = _mm512_setzero_si512();
    for (int part = 0; part < 2; part++) {
        const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(values + part * LANES), inverse);
        const __m512i whole = _mm512_max_epi32(_mm512_cvtps_epi32(scaled), least);
        /* The nearest multiple of 256, and what is left of it: from -128 to 127. */
        const __m512i coarse = _mm512_srai_epi32(_mm512_add_epi32(whole, half), 8);
        const __m512i rounded = _mm512_slli_epi32(coarse, 8);
        _mm_storeu_si128(codes + part, bytes_of(coarse));
        _mm_storeu_si128(codes + 2 + part, bytes_of(_mm512_sub_epi32(whole, rounded)));
        sum = _mm512_add_epi32(sum, is_fine ? whole : rounded);
    }
    in->is_fine[g] = (uint8_t)is_fine;
    in->scales[g] = peak / (127.0f * 256.0f);
    in->sums[g] = in->scales[g] * (float)_mm512_reduce_add_epi32(sum);
}

void quantise(const struct input *in) {
    const int groups = in->columns / GROUP;
    for (int row = 0; row < in->count; row++) {
        const size_t first = (size_t)row * groups;
        float energy = 0.0f;
        for (int group = 0; group < groups; group++) {
            const float peak = peak_of(in->rows + (first + group) * GROUP);
            in->scales[first + group] = peak;
            energy += peak * peak;
        }
        const float bound = energy / (float)groups * FINE_SHARE;
        for (int group = 0; group < groups; group++) {
            const float peak = in->scales[first + group];
            quantise_group(in, first + group, peak, peak * peak > bound);
        }
    }
}

static inline __m512 halves(const uint8_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

static inline __attribute__((always_inline)) void finish(int n, const __m512 *sums, const float *bias,
                                                         int adds, float *out, int32_t stride,
                                                         __mmask16 lanes) {
    for (int row = 0; row < n; row++) {
        __m512 sum = sums[row];
        float *at = out + (size_t)row * stride;
        if (bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, bias));
        if (adds) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, at));
        _mm512_mask_storeu_ps(at, lanes, sum);
    }
}

static inline __attribute__((always_inline)) void tile_f32(int n, const uint8_t *data,
                                                           const struct input *in, int first,
                                                           __m512 *sums) {
    const float *rows[ROWS_MAX];
    for (int row = 0; row < n; row++) {
        rows[row] = in->rows + (size_t)(first + row) * in->columns;
        sums[row] = _mm512_setzero_ps();
    }
    const float *weights = (const float *)data;
    for (int column = 0; column < in->columns; column++) {
        const __m512 weight = _mm512_loadu_ps(weights + (size_t)column * LANES);
        for (int row = 0; row < n; row++)
            sums[row] = _mm512_fmadd_ps(weight, _mm512_set1_ps(rows[row][column]), sums[row]);
    }
}

static inline __attribute__((always_inline)) void tile_codes(int n, int is_q4, const uint8_t *data,
                                                             const struct input *in, int first,
                                                             __m512 *sums) {
    const int groups = in->columns / GROUP;
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int row = 0; row < n; row++) sums[row] = _mm512_setzero_ps();
    for (int group = 0; group < groups; group++) {
        __m512i codes[8];
        __m512 scale, minimum;
        if (is_q4) {
            for (int j = 0; j < 4; j++) {
                const __m512i packed = _mm512_loadu_si512(data + 64 * j);
                codes[j] = _mm512_and_si512(packed, nibble);
                codes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
            }
            scale = halves(data + 256);
            minimum = halves(data + 288);
            data += TILE4_BYTES;
        } else {
            for (int j = 0; j < 8; j++) codes[j] = _mm512_loadu_si512(data + 64 * j);
            scale = halves(data + 512);
            minimum = _mm512_mul_ps(scale, _mm512_set1_ps(-128.0f));
            data += TILE8_BYTES;
        }
        for (int row = 0; row < n; row++) {
            const size_t g = (size_t)(first + row) * groups + group;
            const int32_t *coarse = (const int32_t *)(in->codes + g * 2 * GROUP), *fine = coarse + 8;
            __m512i dot = _mm512_setzero_si512();
            for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, codes[j], _mm512_set1_epi32(coarse[j]));
            dot = _mm512_slli_epi32(dot, 8); /* below 2^29: 32 times 255 times 128 times 256 */
            if (in->is_fine[g])
                for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, codes[j], _mm512_set1_epi32(fine[j]));
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(in->scales[g]));
            sums[row] = _mm512_fmadd_ps(both, _mm512_cvtepi32_ps(dot), sums[row]);
            sums[row] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(in->sums[g]), sums[row]);
        }
    }
}

static inline __attribute__((always_inline)) void tile(int n, int kind, const struct matrix *matrix, int index,
                                                       const struct input *in, int first, const float *bias,
                                                       int adds, float *out, int32_t stride) {
    __m512 sums[ROWS_MAX];
    const int left = matrix->rows - index * LANES;
    const __mmask16 lanes = left >= LANES ? 0xFFFF : (__mmask16)((1u << left) - 1);
    const size_t groups = (size_t)matrix->columns / GROUP;
    switch (kind) {
    case MATRIX_F32:
        tile_f32(n, matrix->data + (size_t)index * matrix->columns * 64, in, first, sums);
        break;
    case MATRIX_Q4:
        tile_codes(n, 1, matrix->data + index * groups * TILE4_BYTES, in, first, sums);
        break;
    default:
        tile_codes(n, 0, matrix->data + index * groups * TILE8_BYTES, in, first, sums);
    }
    finish(n, sums, bias ? bias + (size_t)index * LANES : NULL, adds,
           out + (size_t)first * stride + (size_t)index * LANES, stride, lanes);
}

/* One function for each number of rows, so that sums stay in registers. */
#define ROWS_CASE(n)                                                                  \
    case n:                                                                           \
        tile(n, kind, matrix, index, in, first, bias, adds, out, stride);             \
        break;

static inline __attribute__((always_inline)) void column_of_tiles(int kind, const struct matrix *matrix,
                                                                  int index, const struct input *in,
                                                                  const float *bias, int adds, float *out,
                                                                  int32_t stride) {
    for (int first = 0; first < in->count; first += ROWS_MAX) {
        const int n = in->count - first < ROWS_MAX ? in->count - first : ROWS_MAX;
        switch (n) {
            ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3) ROWS_CASE(4)
            ROWS_CASE(5) ROWS_CASE(6) ROWS_CASE(7) ROWS_CASE(8)
        }
    }
}

/* out[row, :rows] (+)= in[row] times the matrix (+ bias); ``stride`` floats from row to row of out. */
void multiply(const struct matrix *matrix, const struct input *in, const float *bias, int adds, float *out,
              int32_t stride, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int index = 0; index < matrix->tiles; index++) {
        switch (matrix->kind) {
        case MATRIX_F32:
            column_of_tiles(MATRIX_F32, matrix, index, in, bias, adds, out, stride);
            break;
        case MATRIX_Q4:
            column_of_tiles(MATRIX_Q4, matrix, index, in, bias, adds, out, stride);
            break;
        default:
            column_of_tiles(MATRIX_Q8, matrix, index, in, bias, adds, out, stride);
        }
    }
}

/* One row of a matrix, unpacked: an embedding. */
void odsi_matrix_row(const struct matrix *matrix, int32_t row, float *out) {
    const int index = row / LANES, lane = row % LANES;
    const size_t groups = (size_t)matrix->columns / GROUP;
    if (matrix->kind == MATRIX_F32) {
        const float *data = (const float *)matrix->data + (size_t)index * matrix->columns * LANES;
        for (int column = 0; column < matrix->columns; column++) out[column] = data[(size_t)column * LANES + lane];
        return;
    }
    const int is_q4 = matrix->kind == MATRIX_Q4;
    for (size_t group = 0; group < groups; group++) {
        const uint8_t *data = matrix->data + (index * groups + group) * (is_q4 ? TILE4_BYTES : TILE8_BYTES);
        const uint16_t *scales = (const uint16_t *)(data + (is_q4 ? 256 : 512));
        const float scale = _cvtsh_ss(scales[lane]);
        const float minimum = is_q4 ? _cvtsh_ss(scales[LANES + lane]) : -128.0f * scale;
        for (int column = 0; column < GROUP; column++) {
            const int quad = column / 4;
            const uint8_t byte = data[(is_q4 ? quad % 4 : quad) * 64 + lane * 4 + column % 4];
            const int code = !is_q4 ? byte : quad < 4 ? byte & 15 : byte >> 4;
            out[group * GROUP + column] = scale * (float)code + minimum;
        }
    }
}
