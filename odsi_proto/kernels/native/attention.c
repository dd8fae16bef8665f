/* Attention over keys and values that lie in blocks of 16 positions.
 *
 * In a block, keys are stored [head_size, 16]: a register holds one dimension of 16 positions, so the
 * scores of 16 positions come out side by side and nothing is summed across lanes. Values are stored
 * [16, head_size].
 *
 * Query heads that share keys, and neighbouring rows of one request, are worked on together, so that a
 * key is loaded once for up to 12 queries. What a query sees does not depend on its company: positions
 * after its own have score -inf, and their values are not added at all, not even 0 times, because a row that
 * is not finite must not reach those before it.
 */
#include <float.h>
#include <math.h>
#include <omp.h>

#include "native.h"

static inline __m512 load_cache(const uint8_t *from, size_t at, int is_f16) {
    if (is_f16) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + 2 * at)));
    return _mm512_loadu_ps(from + 4 * at);
}

static inline void store_cache(uint8_t *to, size_t at, float value, int is_f16) {
    if (is_f16)
        ((uint16_t *)to)[at] = (uint16_t)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
    else
        ((float *)to)[at] = value;
}

static inline uint8_t *of_head(const struct stage *stage, int block, int layer, int is_value, int head) {
    const size_t head_bytes = (size_t)LANES * stage->head_size * (stage->cache_is_f16 ? 2 : 4);
    const size_t heads = ((size_t)layer * 2 + is_value) * stage->kv_heads + head;
    return stage->cache + (size_t)block * stage->block_bytes + heads * head_bytes;
}

/* Put one position's key and value, [kv_heads, head_size] each, in their block. */
void store(const struct stage *stage, int layer, const struct place *place, const float *key, const float *value) {
    const int block = place->blocks[place->position / LANES], lane = place->position % LANES;
    for (int head = 0; head < stage->kv_heads; head++) {
        uint8_t *keys = of_head(stage, block, layer, 0, head), *values = of_head(stage, block, layer, 1, head);
        for (int i = 0; i < stage->head_size; i++) {
            const size_t at = (size_t)head * stage->head_size + i;
            store_cache(keys, (size_t)i * LANES + lane, key[at], stage->cache_is_f16);
            store_cache(values, (size_t)lane * stage->head_size + i, value[at], stage->cache_is_f16);
        }
    }
}

/* Queries that are worked on together: of one request, sharing one head of keys. */
struct queries {
    const struct stage *stage;
    const int32_t *blocks;
    int layer, kv_head;
    int positions; /* that the last of them sees */
    const float *from[QUERIES_MAX];
    float *to[QUERIES_MAX];
    int seen[QUERIES_MAX]; /* positions that each sees: the first the fewest */
    float *scores;
    int32_t stride;
};

/* Ask for a head of the block after next: blocks lie far apart, so the processor does not guess it. */
static inline void prefetch(const struct queries *q, int position, int is_value, int is_f16) {
    if (position >= q->positions) return;
    const uint8_t *head = of_head(q->stage, q->blocks[position / LANES], q->layer, is_value, q->kv_head);
    const int bytes = LANES * q->stage->head_size * (is_f16 ? 2 : 4);
    for (int at = 0; at < bytes; at += 64) _mm_prefetch((const char *)head + at, _MM_HINT_T0);
}

/* ``blocks`` at a time: a sum waits four cycles for the one before it, and others fill them. */
static inline __attribute__((always_inline)) void score(int n, int blocks, const struct queries *q, int is_f16) {
    const int size = q->stage->head_size, last = (q->positions - 1) / LANES;
    const __m512 scale = _mm512_set1_ps(q->stage->attention_scale), none = _mm512_set1_ps(-INFINITY);
    for (int first = 0; first < q->positions; first += blocks * LANES) {
        const uint8_t *keys[2];
        __m512 sums[QUERIES_MAX][2];
        for (int block = 0; block < blocks; block++) {
            const int index = first / LANES + block;
            keys[block] = of_head(q->stage, q->blocks[index < last ? index : last], q->layer, 0, q->kv_head);
            prefetch(q, first + (blocks + block) * LANES, 0, is_f16);
            for (int i = 0; i < n; i++) sums[i][block] = _mm512_setzero_ps();
        }
        for (int dimension = 0; dimension < size; dimension++) {
            for (int block = 0; block < blocks; block++) {
                const __m512 key = load_cache(keys[block], (size_t)dimension * LANES, is_f16);
                for (int i = 0; i < n; i++)
                    sums[i][block] = _mm512_fmadd_ps(key, _mm512_set1_ps(q->from[i][dimension]), sums[i][block]);
            }
        }
        for (int block = 0; block < blocks && first + block * LANES < q->positions; block++) {
            for (int i = 0; i < n; i++) {
                const int at = first + block * LANES, left = q->seen[i] - at;
                const __mmask16 lanes = left >= LANES ? 0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
                _mm512_storeu_ps(q->scores + (size_t)i * q->stride + at,
                                 _mm512_mask_mov_ps(none, lanes, _mm512_mul_ps(sums[i][block], scale)));
            }
        }
    }
}

/* Scores to weights that sum to 1, in place; whole registers, what is not seen becomes 0. */
static void soften(float *scores, int positions) {
    __m512 peak = _mm512_set1_ps(-FLT_MAX), sum = _mm512_setzero_ps();
    for (int at = 0; at < positions; at += LANES) peak = _mm512_max_ps(peak, _mm512_loadu_ps(scores + at));
    peak = _mm512_set1_ps(_mm512_reduce_max_ps(peak));
    for (int at = 0; at < positions; at += LANES) {
        const __m512 weight = exp512(_mm512_sub_ps(_mm512_loadu_ps(scores + at), peak));
        _mm512_storeu_ps(scores + at, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (int at = 0; at < positions; at += LANES)
        _mm512_storeu_ps(scores + at, _mm512_mul_ps(_mm512_loadu_ps(scores + at), inverse));
}

/* Add one position's value, weighted, to the sums of the queries that see it. */
static inline __attribute__((always_inline)) void weigh(int n, int slices, int slice, const struct queries *q, int is_f16,
                                                        int position, int all_see, __m512 sums[QUERIES_MAX][4]) {
    const int size = q->stage->head_size;
    const uint8_t *values = of_head(q->stage, q->blocks[position / LANES], q->layer, 1, q->kv_head);
    __m512 value[4];
    for (int s = 0; s < slices; s++)
        value[s] = load_cache(values, (size_t)(position % LANES) * size + slice + s * LANES, is_f16);
    for (int i = 0; i < n; i++) {
        if (!all_see && q->seen[i] <= position) continue;
        const __m512 weight = _mm512_set1_ps(q->scores[(size_t)i * q->stride + position]);
        for (int s = 0; s < slices; s++) sums[i][s] = _mm512_fmadd_ps(value[s], weight, sums[i][s]);
    }
}

/* The values, weighted and summed, ``slices`` registers of each at a time. */
static inline __attribute__((always_inline)) void mix(int n, int slices, int slice, const struct queries *q, int is_f16) {
    __m512 sums[QUERIES_MAX][4];
    for (int i = 0; i < n; i++)
        for (int s = 0; s < slices; s++) sums[i][s] = _mm512_setzero_ps();
    int position = 0;
    for (; position < q->seen[0]; position++) {
        if (!slice && position % LANES == 0) prefetch(q, position + LANES, 1, is_f16);
        weigh(n, slices, slice, q, is_f16, position, 1, sums);
    }
    for (; position < q->positions; position++) weigh(n, slices, slice, q, is_f16, position, 0, sums);
    for (int i = 0; i < n; i++)
        for (int s = 0; s < slices; s++) _mm512_storeu_ps(q->to[i] + slice + s * LANES, sums[i][s]);
}

static inline __attribute__((always_inline)) void together(int n, const struct queries *q, int is_f16) {
    score(n, n <= 6 ? 2 : 1, q, is_f16);
    for (int i = 0; i < n; i++) soften(q->scores + (size_t)i * q->stride, q->positions);
    const int slices = n <= 6 ? 4 : 2;
    int slice = 0;
    for (; slice + slices * LANES <= q->stage->head_size; slice += slices * LANES) mix(n, slices, slice, q, is_f16);
    for (; slice < q->stage->head_size; slice += LANES) mix(n, 1, slice, q, is_f16);
}

/* One function for each number of queries, so that sums stay in registers. */
#define QUERIES_CASE(n)                                          \
    case n:                                                      \
        if (q->stage->cache_is_f16) together(n, q, 1);           \
        else together(n, q, 0);                                  \
        break;

static void answer(int n, const struct queries *q) {
    switch (n) {
        QUERIES_CASE(1) QUERIES_CASE(2) QUERIES_CASE(3) QUERIES_CASE(4) QUERIES_CASE(5) QUERIES_CASE(6)
        QUERIES_CASE(7) QUERIES_CASE(8) QUERIES_CASE(9) QUERIES_CASE(10) QUERIES_CASE(11) QUERIES_CASE(12)
    }
}

/* How many rows from ``first`` on are of one request, at most as many as are worked on together. */
static int neighbours(const struct place *places, int first, int count, int most) {
    int n = 1;
    while (n < most && first + n < count && places[first + n].blocks == places[first].blocks &&
           places[first + n].position == places[first].position + n)
        n++;
    return n;
}

/* Mixed values [count, heads * head_size] of rows ``heads`` [count, queries | keys | values] whose keys and values
 * are stored already. ``scores`` has QUERIES_MAX rows of ``scores_stride`` floats for each thread. */
void attend(const struct stage *stage, int layer, const struct place *places, int count, const float *heads,
            float *out, float *scores, int32_t scores_stride) {
    const int size = stage->head_size, group = stage->heads / stage->kv_heads;
    const int together_heads = group < QUERIES_MAX ? group : QUERIES_MAX;
    const int together_rows = QUERIES_MAX / together_heads;
    const size_t width = ((size_t)stage->heads + 2 * stage->kv_heads) * size;
#pragma omp parallel for num_threads(stage->threads) if (stage->threads > 1 && count > 1) schedule(dynamic)
    for (int kv_head = 0; kv_head < stage->kv_heads; kv_head++) {
        struct queries q = {.stage = stage, .layer = layer, .kv_head = kv_head, .stride = scores_stride};
        q.scores = scores + (size_t)omp_get_thread_num() * QUERIES_MAX * scores_stride;
        for (int row = 0, rows; row < count; row += rows) {
            rows = neighbours(places, row, count, together_rows);
            q.blocks = places[row].blocks;
            q.positions = places[row + rows - 1].position + 1;
            for (int first = 0; first < group; first += together_heads) {
                int n = 0;
                for (int r = row; r < row + rows; r++)
                    for (int head = first; head < group && head < first + together_heads; head++, n++) {
                        const size_t at = (size_t)kv_head * group + head;
                        q.from[n] = heads + r * width + at * size;
                        q.to[n] = out + ((size_t)r * stage->heads + at) * size;
                        q.seen[n] = places[r].position + 1;
                    }
                answer(n, &q);
            }
        }
    }
}
