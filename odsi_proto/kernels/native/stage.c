/* The layers of one stage, for a batch of rows of any requests: one call for a whole step.
 *
 * A decode layer in torch is some twenty operators whose calls cost as much as their work. Here a stage
 * is one call, weights stay packed as in the file until they are in registers, and what is bound by
 * memory reads each weight once for the whole batch.
 *
 * Rows pass in chunks of up to 128 through all layers: that bounds the scratch memory, and keeps a
 * chunk's rows in the cache. A chunk's keys and values are stored before its rows look at them.
 */
#include <math.h>
#include <string.h>

#include "native.h"

#define CHUNK 128

/* x / sqrt(mean(x^2) + epsilon) * weight. A row whose squares leave binary32 becomes no number: divided by
 * infinity it would be 0, and its keys and values would be wrong without a word. */
static void normalise(const float *row, const float *weight, int width, float epsilon, float *out) {
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) {
        const __m512 value = _mm512_loadu_ps(row + i);
        squares = _mm512_fmadd_ps(value, value, squares);
    }
    const float mean = _mm512_reduce_add_ps(squares) / (float)width;
    const __m512 inverse = _mm512_set1_ps(isfinite(mean) ? 1.0f / sqrtf(mean + epsilon) : NAN);
    for (int i = 0; i < width; i += LANES) {
        const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(row + i), inverse);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(scaled, _mm512_loadu_ps(weight + i)));
    }
}

/* Turn the pairs of one head: (a, b) becomes (a cos - b sin, a sin + b cos). */
static void rotate(float *head, const float *rotation, int size) {
    for (int i = 0; i < size; i += LANES) {
        const __m512 value = _mm512_loadu_ps(head + i), turn = _mm512_loadu_ps(rotation + i);
        const __m512 cosine = _mm512_moveldup_ps(turn), sine = _mm512_movehdup_ps(turn);
        const __m512 swapped = _mm512_permute_ps(value, 0xB1);
        _mm512_storeu_ps(head + i, _mm512_fmaddsub_ps(value, cosine, _mm512_mul_ps(swapped, sine)));
    }
}

/* silu(gate) * up, for rows [gate | up] */
static void activate(const float *row, int width, float *out) {
    for (int i = 0; i < width; i += LANES) {
        const __m512 gate = _mm512_loadu_ps(row + i), up = _mm512_loadu_ps(row + width + i);
        const __m512 low = _mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate), _mm512_set1_ps(88.0f));
        const __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), exp512(low));
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_div_ps(gate, below), up));
    }
}

/* What one chunk needs beside its rows; laid out in the caller's scratch memory. */
struct scratch {
    float *normal, *wide, *mixed, *scales, *sums, *scores;
    int8_t *codes;
    uint8_t *is_fine;
};

static int widest(const struct stage *stage) {
    const int query_key_value = (stage->heads + 2 * stage->kv_heads) * stage->head_size;
    const int gate_up = 2 * stage->feed_forward;
    return query_key_value > gate_up ? query_key_value : gate_up;
}

static int widest_input(const struct stage *stage) {
    int width = stage->width;
    if (stage->feed_forward > width) width = stage->feed_forward;
    if (stage->heads * stage->head_size > width) width = stage->heads * stage->head_size;
    return width;
}

/* Floats from one row of scores to the next: whole registers. */
static int32_t scores_for(int32_t positions) { return (positions + LANES) / LANES * LANES; }

/* Floats of scratch that a batch of ``count`` rows up to ``positions`` needs. */
int64_t odsi_scratch(const struct stage *stage, int32_t count, int32_t positions) {
    const int64_t rows = count < CHUNK ? count : CHUNK, input = widest_input(stage);
    const int64_t scores = (int64_t)QUERIES_MAX * stage->threads * scores_for(positions);
    return rows * (stage->width + widest(stage) + input + input / 2 + 3 * (input / GROUP + 1)) + scores + 7 * LANES;
}

static struct scratch lay_out(const struct stage *stage, int rows, float *memory) {
    const size_t input = widest_input(stage);
    struct scratch scratch;
    scratch.normal = memory;
    scratch.wide = scratch.normal + rows * (size_t)stage->width;
    scratch.mixed = scratch.wide + rows * (size_t)widest(stage);
    scratch.codes = (int8_t *)(scratch.mixed + rows * input);
    scratch.scales = (float *)scratch.codes + rows * (input / 2);
    scratch.sums = scratch.scales + rows * (input / GROUP + 1);
    scratch.is_fine = (uint8_t *)(scratch.sums + rows * (input / GROUP + 1));
    scratch.scores = scratch.sums + 2 * rows * (input / GROUP + 1);
    return scratch;
}

/* Rows on their way into matrices of one kind: packed ones need the codes. */
static struct input inputs(const struct scratch *scratch, const float *rows, int count, const struct matrix *matrix) {
    const int columns = matrix->columns;
    const struct input in = {rows, scratch->codes, scratch->scales, scratch->sums, scratch->is_fine, count, columns};
    if (matrix->kind != MATRIX_F32) quantise(&in);
    return in;
}

static void normalise_all(const struct stage *stage, const float *rows, const float *weight, int count, float *out) {
    for (int row = 0; row < count; row++) {
        const size_t at = (size_t)row * stage->width;
        normalise(rows + at, weight, stage->width, stage->epsilon, out + at);
    }
}

/* Norms of single heads where the model has them, rotation, and the way into the cache. */
static void place_keys(const struct stage *stage, int index, const struct place *places, int count, float *rows) {
    const struct layer *layer = stage->layers + index;
    const int size = stage->head_size, turned = stage->heads + stage->kv_heads;
    for (int row = 0; row < count; row++) {
        float *heads = rows + (size_t)row * (turned + stage->kv_heads) * size;
        const float *rotation = stage->rotation + (size_t)places[row].position * size;
        for (int head = 0; head < turned; head++) {
            const float *norm = head < stage->heads ? layer->query_norm : layer->key_norm;
            if (norm) normalise(heads + head * size, norm, size, stage->epsilon, heads + head * size);
            rotate(heads + head * size, rotation, size);
        }
        store(stage, index, places + row, heads + stage->heads * size, heads + turned * size);
    }
}

static void run_chunk(const struct stage *stage, const struct place *places, int count, float *rows,
                      const struct scratch *scratch, int32_t scores_stride) {
    const int heads = stage->heads * stage->head_size, kv_heads = stage->kv_heads * stage->head_size;
    const int qkv = heads + 2 * kv_heads, wide = 2 * stage->feed_forward;
    float *const out = scratch->wide;
    for (int index = 0; index < stage->layers_count; index++) {
        const struct layer *layer = stage->layers + index;
        normalise_all(stage, rows, layer->attention_norm, count, scratch->normal);
        struct input in = inputs(scratch, scratch->normal, count, &layer->query);
        multiply(&layer->query, &in, layer->query_bias, 0, out, qkv, stage->threads);
        multiply(&layer->key, &in, layer->key_bias, 0, out + heads, qkv, stage->threads);
        multiply(&layer->value, &in, layer->value_bias, 0, out + heads + kv_heads, qkv, stage->threads);
        place_keys(stage, index, places, count, out);
        attend(stage, index, places, count, out, scratch->mixed, scratch->scores, scores_stride);
        in = inputs(scratch, scratch->mixed, count, &layer->attention_output);
        multiply(&layer->attention_output, &in, NULL, 1, rows, stage->width, stage->threads);
        normalise_all(stage, rows, layer->feed_forward_norm, count, scratch->normal);
        in = inputs(scratch, scratch->normal, count, &layer->gate);
        multiply(&layer->gate, &in, NULL, 0, out, wide, stage->threads);
        multiply(&layer->up, &in, NULL, 0, out + stage->feed_forward, wide, stage->threads);
        for (int row = 0; row < count; row++)
            activate(out + (size_t)row * wide, stage->feed_forward, scratch->mixed + (size_t)row * stage->feed_forward);
        in = inputs(scratch, scratch->mixed, count, &layer->down);
        multiply(&layer->down, &in, NULL, 1, rows, stage->width, stage->threads);
    }
}

/* Run ``rows`` [count, width] through all layers, in place. Rows of one request come in order of position. */
void odsi_run(const struct stage *stage, const struct place *places, int32_t count, int32_t positions, float *rows,
              float *memory) {
    const int32_t scores_stride = scores_for(positions);
    const struct scratch scratch = lay_out(stage, count < CHUNK ? count : CHUNK, memory);
    for (int first = 0; first < count; first += CHUNK) {
        const int n = count - first < CHUNK ? count - first : CHUNK;
        run_chunk(stage, places + first, n, rows + (size_t)first * stage->width, &scratch, scores_stride);
    }
}

/* Logits [count, head->rows] of rows [count, width]; ``memory`` as for odsi_run with one layer's widths. */
void odsi_head(const struct matrix *head, const float *norm, float epsilon, const float *rows, int32_t count,
               float *out, float *memory, int32_t threads) {
    const int width = head->columns;
    const size_t groups = (size_t)count * (width / GROUP + 1);
    float *normal = memory, *scales = memory + (size_t)count * width, *sums = scales + groups;
    uint8_t *is_fine = (uint8_t *)(sums + groups);
    int8_t *codes = (int8_t *)(sums + 2 * groups);
    for (int row = 0; row < count; row++)
        normalise(rows + (size_t)row * width, norm, width, epsilon, normal + (size_t)row * width);
    const struct input in = {normal, codes, scales, sums, is_fine, count, width};
    if (head->kind != MATRIX_F32) quantise(&in);
    multiply(head, &in, NULL, 0, out, head->rows, threads);
}

/* Compared with native.py's: a library that was built from other sources must not be called. */
int32_t odsi_layout(void) { return LAYOUT * 10000 + (int32_t)(sizeof(struct stage) + sizeof(struct layer)); }
