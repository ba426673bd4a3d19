/* The element-wise work of a training step on a CPU, each piece in one pass over memory.
 *
 * Matrix products are left to torch (oneDNN); between them, eager torch reads and writes the activations many times
 * over, in bfloat16 without vector code of its own. Compiled once by the machine's C compiler where it has one
 * (gristmill/model/native); every function has an equivalent in plain torch operations and a test against it.
 *
 * Arithmetic is float32 whatever the storage. Loops over rows are split statically and no sum crosses threads, so
 * results do not depend on the number of threads. This file includes itself twice, for each storage type.
 */
#ifndef TYPE
#include <stdlib.h>
#include "storage.h"

/* a counter-based generator: the same number for the same (seed, index), whoever asks and in whatever order */
static inline uint32_t hash32(uint64_t seed, uint64_t i) {
    uint64_t z = seed + i * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull; z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

#define MOST_HEAD_SIZE 1024 /* ops.py sends larger ones another way */
#define PARTS 32  /* rows are summed in this many fixed parts: gradients of gains do not depend on the threads */
#define PARALLEL _Pragma("omp parallel for schedule(static)")

/* The activations, each with its derivative: silu is x s for the logistic function s. gelu is x P for the normal
 * distribution function P (Hendrycks and Gimpel 2016), from erf by Abramowitz and Stegun 7.1.26, error below 1.5e-7,
 * with the smaller of P and 1 - P computed as such. gelu_tanh is its approximation x (1 + tanh u) / 2 = x s(2u). */
typedef struct { float value, slope; } curve;

/* the exponential is at most 1, so that no product overflows and none of s and 1 - s is lost beside 1 */
static inline curve logistic(float z) {
    float e = fast_exp(-fabsf(z)), t = 1.f / (1.f + e);
    return (curve){z < 0.f ? e * t : t, e * t * t};
}

static inline curve silu_of(float x) {
    curve s = logistic(x);
    return (curve){x * s.value, s.value + x * s.slope};
}

static inline curve gelu_of(float x) {
    float size = fabsf(x), t = 1.f / (1.f + 0.3275911f * 0.70710678f * size), e = fast_exp(-0.5f * x * x);
    float tail = 0.5f * e * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    float p = x < 0.f ? tail : 1.f - tail;
    return (curve){x * p, p + x * e * 0.39894228f};
}

static inline curve gelu_tanh_of(float x) {
    curve s = logistic(1.59576912f * (x + 0.044715f * x * x * x));
    return (curve){x * s.value, s.value + x * s.slope * 1.59576912f * (1.f + 0.134145f * x * x)};
}

static inline curve relu_of(float x) { return (curve){x < 0.f ? 0.f : x, x > 0.f ? 1.f : 0.f}; }

/* out[i] = sum over k of table[rows[i, k]] */
void sum_rows(const float *restrict table, const int64_t *restrict rows, float *restrict out, long n, long k, long c) {
    PARALLEL
    for (long i = 0; i < n; i++) {
        float *o = out + i * c; memset(o, 0, 4 * c);
        for (long q = 0; q < k; q++) { const float *t = table + rows[i * k + q] * c; for (long j = 0; j < c; j++) o[j] += t[j]; }
    }
}

/* out[s] = sum of grad[order[p] / k] over starts[s] <= p < starts[s + 1] */
void sum_segments(const float *restrict grad, const int64_t *restrict order, const int64_t *restrict starts, float *restrict out, long n, long k, long c) {
    PARALLEL
    for (long s = 0; s < n; s++) {
        float *o = out + s * c; memset(o, 0, 4 * c);
        for (long p = starts[s]; p < starts[s + 1]; p++) { const float *g = grad + (order[p] / k) * c; for (long j = 0; j < c; j++) o[j] += g[j]; }
    }
}

/* y [c, n] = x [n, c] transposed, in tiles that stay in registers and the nearest cache */
#define TILE 32
void transpose_bf16(const bf16 *restrict x, bf16 *restrict y, long n, long c) {
    PARALLEL
    for (long j0 = 0; j0 < c; j0 += TILE) for (long i0 = 0; i0 < n; i0 += TILE) {
        long i1 = i0 + TILE < n ? i0 + TILE : n, j1 = j0 + TILE < c ? j0 + TILE : c; bf16 tile[TILE][TILE];
        if (i1 - i0 < TILE || j1 - j0 < TILE) { for (long j = j0; j < j1; j++) for (long i = i0; i < i1; i++) y[j * n + i] = x[i * c + j]; continue; }
        for (long i = 0; i < TILE; i++) for (long j = 0; j < TILE; j++) tile[j][i] = x[(i0 + i) * c + j0 + j];
        for (long j = 0; j < TILE; j++) memcpy(y + (j0 + j) * n + i0, tile[j], sizeof(bf16) * TILE);
    }
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define TILES
/* Attention on tiles: a processor with AMX multiplies 16 x 32 by 32 x 16 numbers of bfloat16 in one instruction.
 *
 * The products of attention are narrow (K columns), and as calls of a library they reach a third of their speed and write
 * all scores to memory several times: this is twice as fast. A block of scores stays in the nearest caches: forward as in Milakov and
 * Gimelshein 2018, arXiv:1805.02867 (the softmax of a row in parts), backward as in Dao et al. 2022, arXiv:2205.14135
 * (the probabilities are computed again from the logarithm of each row's sum). One thread takes all heads that share
 * their keys, so no sum crosses threads.
 *
 * A product's left side is stored by rows. Its right side is stored in tiles of 16 x 16 pairs, a pair being two numbers
 * that follow each other along the summed axis: `across` makes them of a matrix whose rows are the right side's columns,
 * `pairs` of one whose rows are its rows. */
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TILE_SIZE 512 /* numbers in a tile */
#define STEP 32       /* numbers of the summed axis in a tile, and the side of what `product` computes at once */
#define CHUNK 256     /* keys whose scores are held at a time, forward */
#define SIDE 128      /* queries, and keys, whose scores are held at a time, backward */
#define LOG2E 1.44269504f
#define UP(x, unit) (((x) + (unit) - 1) / (unit) * (unit))

static void start_tiles(void) {
    struct { uint8_t palette, row, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } c = {.palette = 1};
    for (int i = 0; i < 8; i++) { c.bytes[i] = 64; c.rows[i] = 16; }
    _tile_loadconfig(&c);
}

/* c [32, 32] (+)= a [32, 32 steps] b. Rows of c and a are cs and as numbers apart, the steps of a and of b's two halves an and bn. */
static inline void product(float *c, long cs, const bf16 *a, long as, long an, const bf16 *b0, const bf16 *b1, long bn, long steps, int add) {
    if (add) { _tile_loadd(0, c, 4 * cs); _tile_loadd(1, c + 16, 4 * cs); _tile_loadd(2, c + 16 * cs, 4 * cs); _tile_loadd(3, c + 16 * cs + 16, 4 * cs); }
    else { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
    for (long s = 0; s < steps; s++) {
        _tile_loadd(4, a + an * s, 2 * as); _tile_loadd(6, b0 + bn * s, 64); _tile_loadd(7, b1 + bn * s, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * as + an * s, 2 * as);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * cs); _tile_stored(1, c + 16, 4 * cs); _tile_stored(2, c + 16 * cs, 4 * cs); _tile_stored(3, c + 16 * cs + 16, 4 * cs);
}

/* x [n, K], its rows *apart numbers apart, with 0 around it up to [N, P]: itself where nothing is missing, else a copy */
static const bf16 *padded(bf16 *copy, const bf16 *x, long *apart, long n, long K, long N, long P) {
    if (n == N && K == P) return x;
    for (long i = 0; i < N; i++) {
        long some = i < n ? K : 0; memcpy(copy + i * P, x + i * *apart, 2 * some); memset(copy + i * P + some, 0, 2 * (P - some));
    }
    *apart = P;
    return copy;
}

/* the rows of t as columns: 16 x 16 of 32 bits */
static inline void transposed(__m512i t[16]) {
    __m512i u[16];
    for (int i = 0; i < 16; i += 2) { u[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]); u[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]); }
    for (int i = 0; i < 16; i += 4) for (int j = 0; j < 2; j++) { t[i + 2 * j] = _mm512_unpacklo_epi64(u[i + j], u[i + j + 2]); t[i + 2 * j + 1] = _mm512_unpackhi_epi64(u[i + j], u[i + j + 2]); }
    for (int i = 0; i < 16; i += 8) for (int j = 0; j < 4; j++) { u[i + j] = _mm512_shuffle_i32x4(t[i + j], t[i + j + 4], 0x88); u[i + j + 4] = _mm512_shuffle_i32x4(t[i + j], t[i + j + 4], 0xdd); }
    for (int j = 0; j < 8; j++) { t[j] = _mm512_shuffle_i32x4(u[j], u[j + 8], 0x88); t[j + 8] = _mm512_shuffle_i32x4(u[j], u[j + 8], 0xdd); }
}

/* pairs of 16 numbers of bfloat16 each */
static inline __m256i rounded(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
static inline __m512i paired(__m256i a, __m256i b) { return _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16)); }

/* tile (n, s) holds columns 32 s .. of rows 16 n .. of x [N, P], a row of x being a column of it */
static void across(bf16 *tiles, const bf16 *x, long apart, long N, long P) {
    for (long n = 0; n < N; n += 16) for (long s = 0; s < P; s += STEP, tiles += TILE_SIZE) {
        __m512i t[16];
        for (int r = 0; r < 16; r++) t[r] = _mm512_loadu_si512(x + (n + r) * apart + s);
        transposed(t);
        for (int r = 0; r < 16; r++) _mm512_store_si512(tiles + r * 32, t[r]);
    }
}

/* tile (s, c) holds rows 32 s .. and columns 16 c .. of x [N, P] */
static void pairs(bf16 *tiles, const bf16 *x, long apart, long N, long P) {
    for (long s = 0; s < N; s += STEP) for (long c = 0; c < P; c += 16, tiles += TILE_SIZE)
        for (long r = 0; r < 16; r++) { const bf16 *a = x + (s + 2 * r) * apart + c; _mm512_store_si512(tiles + r * 32, paired(_mm256_loadu_si256((const __m256i *)a), _mm256_loadu_si256((const __m256i *)(a + apart)))); }
}

/* y [N / 32, P, 32] has the rows of x [N, P] as columns, 32 at a time; made of what `across` made of x */
static void columns(bf16 *y, const bf16 *tiles, long N, long P) {
    for (long n = 0; n < N; n += 16) for (long s = 0; s < P; s += STEP) for (long r = 0; r < 16; r++, tiles += 32) {
        __m512i t = _mm512_load_si512(tiles); bf16 *o = y + (n / STEP * P + s + 2 * r) * STEP + n % STEP;
        _mm256_storeu_si256((__m256i *)o, _mm512_cvtepi32_epi16(t)); _mm256_storeu_si256((__m256i *)(o + STEP), _mm512_cvtepi32_epi16(_mm512_srli_epi32(t, 16)));
    }
}

/* x [n, K] of the columns of y [N / 32, P, 32] */
static void uncolumns(bf16 *x, const float *y, long n, long K, long P) {
    for (long i = 0; i < n; i += 16) for (long c = 0; c < K; c += STEP) {
        const float *a = y + (i / STEP * P + c) * STEP + i % STEP; __m512i t[16]; __mmask32 some = K - c < STEP ? (1u << (K - c)) - 1 : ~0u;
        for (int r = 0; r < 16; r++) t[r] = paired(rounded(_mm512_loadu_ps(a + 2 * r * STEP)), rounded(_mm512_loadu_ps(a + (2 * r + 1) * STEP)));
        transposed(t);
        for (long r = 0; r < (n - i < 16 ? n - i : 16); r++) _mm512_mask_storeu_epi16(x + (i + r) * K + c, some, t[r]);
    }
}

/* 2^x, relative error below 1e-7 (a polynomial fitted for -1/2 .. 1/2) */
static inline __m512 power(__m512 x) {
    __m512 k = _mm512_roundscale_ps(x, 8), r = _mm512_sub_ps(x, k), p = _mm512_set1_ps(0.00132764713f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00967554096f)); p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0555071309f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240221202f)); p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693146944f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000012f)), k);
}

static inline __m512i counting(long from) { return _mm512_add_epi32(_mm512_set1_epi32(from), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)); }
static inline __mmask16 between(__m512i lo, __m512i x, __m512i hi) { return _mm512_mask_cmplt_epi32_mask(_mm512_cmple_epi32_mask(lo, x), x, hi); }

/* what 32 queries see: from the first key of any to the last */
typedef struct { long lo, hi; } sight;

static sight sight_of(const int32_t *first, const int32_t *last, long S) {
    sight v = {S, 0};
    for (int i = 0; i < STEP; i++) if (last[i] > first[i]) { v.lo = first[i] < v.lo ? first[i] : v.lo; v.hi = last[i] > v.hi ? last[i] : v.hi; }
    return v;
}

static inline int meets(sight v, long key) { return key < v.hi && key + STEP > v.lo; }

/* memory for a thread, in pieces that start at a cache line */
static char *piece(char **at, long bytes) { char *p = *at; *at += UP(bytes, 64); return p; }

/* out [B, T, H, K] of q [B, H, T, K], k and v [B, G, S, K]; logs [B, H, T] are those of the sums of exponentials, to base 2. The rest
 * is as in softmax. */
void attend_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const float *bias, const int32_t *first, const int32_t *last, bf16 *out, float *logs, long B, long H, long G, long T, long S, long K, long R, float scale) {
    long P = UP(K, STEP), N = UP(S, STEP), steps = P / STEP; float unit = scale * LOG2E;
    _Pragma("omp parallel")
    {
        char *memory = aligned_alloc(64, UP(6 * N * P + STEP * (6 * P + 6 * CHUNK) + 4096, 64)), *at = memory; start_tiles();
        bf16 *rows = (bf16 *)piece(&at, 2 * N * P), *keys = (bf16 *)piece(&at, 2 * N * P), *values = (bf16 *)piece(&at, 2 * N * P);
        bf16 *some = (bf16 *)piece(&at, 2 * STEP * P), *p = (bf16 *)piece(&at, 2 * STEP * CHUNK);
        float *scores = (float *)piece(&at, 4 * STEP * CHUNK), *sum = (float *)piece(&at, 4 * STEP * P);
        _Pragma("omp for schedule(dynamic)")
        for (long bg = 0; bg < B * G; bg++) {
            long b = bg / G, ka = K, va = K; const bf16 *x = padded(rows, k + bg * S * K, &ka, S, K, N, P); across(keys, x, ka, N, P);
            x = padded(rows, v + bg * S * K, &va, S, K, N, P); pairs(values, x, va, N, P);
            for (long h = bg % G * (H / G); h < (bg % G + 1) * (H / G); h++) for (long q0 = 0; q0 < T; q0 += STEP) {
                long n = T - q0 < STEP ? T - q0 : STEP; int32_t from[STEP] = {0}, to[STEP] = {0}; float top[STEP], total[STEP] = {0};
                memcpy(from, first + b * T + q0, 4 * n); memcpy(to, last + b * T + q0, 4 * n);
                for (int i = 0; i < STEP; i++) top[i] = -1e30f;
                sight seen = sight_of(from, to, S);
                long qa = K; x = padded(some, q + ((b * H + h) * T + q0) * K, &qa, n, K, STEP, P); memset(sum, 0, 4 * STEP * P);
                for (long k0 = seen.lo / STEP * STEP; k0 < seen.hi; k0 += CHUNK) {
                    long w = UP(seen.hi - k0 < CHUNK ? seen.hi - k0 : CHUNK, STEP);
                    for (long j = 0; j < w; j += STEP) { const bf16 *t = keys + (k0 + j) / 16 * steps * TILE_SIZE; product(scores + j, CHUNK, x, qa, STEP, t, t + steps * TILE_SIZE, TILE_SIZE, steps, 0); }
                    for (long i = 0; i < STEP; i++) {
                        float *a = scores + i * CHUNK, *o = sum + i * P; const float *c = bias ? bias + h * R + k0 - (q0 + i) + T - 1 : 0;
                        __m512i lo = _mm512_set1_epi32(from[i]), hi = _mm512_set1_epi32(to[i]); __m512 most = _mm512_set1_ps(top[i]), s = _mm512_setzero_ps();
                        for (long j = 0; j < w; j += 16) {
                            __mmask16 m = between(lo, counting(k0 + j), hi); __m512 x = _mm512_mul_ps(_mm512_load_ps(a + j), _mm512_set1_ps(unit));
                            if (c) x = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, c + j), _mm512_set1_ps(LOG2E), x);
                            _mm512_store_ps(a + j, x); most = _mm512_mask_max_ps(most, m, most, x);
                        }
                        float before = top[i]; top[i] = _mm512_reduce_max_ps(most); most = _mm512_set1_ps(top[i]);
                        for (long j = 0; j < w; j += 16) {
                            __m512 e = _mm512_maskz_mov_ps(between(lo, counting(k0 + j), hi), power(_mm512_sub_ps(_mm512_load_ps(a + j), most)));
                            s = _mm512_add_ps(s, e); _mm256_store_si256((__m256i *)(p + i * CHUNK + j), rounded(e));
                        }
                        float less = before == top[i] ? 1.f : exp2f(before - top[i]); total[i] = total[i] * less + _mm512_reduce_add_ps(s);
                        if (less != 1.f) for (long j = 0; j < P; j++) o[j] *= less;
                    }
                    for (long c = 0; c < P; c += STEP) { const bf16 *t = values + (k0 / STEP * (P / 16) + c / 16) * TILE_SIZE; product(sum + c, P, p, CHUNK, STEP, t, t + TILE_SIZE, P / 16 * TILE_SIZE, w / STEP, 1); }
                }
                for (long i = 0; i < n; i++) {
                    bf16 *restrict o = out + ((b * T + q0 + i) * H + h) * K; float r = total[i] > 0.f ? 1.f / total[i] : 0.f;
                    for (long c = 0; c < K; c++) o[c] = store_bf16(sum[i * P + c] * r);
                    logs[(b * H + h) * T + q0 + i] = total[i] > 0.f ? top[i] + log2f(total[i]) : 0.f;
                }
            }
        }
        free(memory); _tile_release();
    }
}

/* for a block of 32 keys from j and 32 queries: in place of the scores, transposed, the probabilities, and of their gradients
 * those of the scores; both are stored as rows, the latter also as pairs */
static inline void turn_scores(const float *s, const float *dp, const float *bias, float *dbias, const float *logs, const float *delta, const int32_t *from, const int32_t *to, long j, float scale, bf16 *p, bf16 *ds, bf16 *both) {
    for (int c = 0; c < STEP; c += 16) {
        __m512 log = _mm512_load_ps(logs + c), mean = _mm512_load_ps(delta + c); __m512i lo = _mm512_load_si512(from + c), hi = _mm512_load_si512(to + c); __m256i even = {0};
        for (int r = 0; r < STEP; r++) {
            __m512 x = _mm512_fmsub_ps(_mm512_load_ps(s + r * STEP + c), _mm512_set1_ps(scale * LOG2E), log);
            if (bias) x = _mm512_fmadd_ps(_mm512_loadu_ps(bias + c - r), _mm512_set1_ps(LOG2E), x);
            x = _mm512_maskz_mov_ps(between(lo, _mm512_set1_epi32(j + r), hi), power(x));
            __m512 g = _mm512_mul_ps(x, _mm512_sub_ps(_mm512_load_ps(dp + r * STEP + c), mean));
            if (dbias) _mm512_storeu_ps(dbias + c - r, _mm512_add_ps(_mm512_loadu_ps(dbias + c - r), g));
            __m256i y = rounded(_mm512_mul_ps(g, _mm512_set1_ps(scale)));
            _mm256_store_si256((__m256i *)(p + r * SIDE + c), rounded(x)); _mm256_store_si256((__m256i *)(ds + r * SIDE + c), y);
            if (r & 1) _mm512_store_si512(both + c / 16 * TILE_SIZE + r / 2 * 32, paired(even, y));
            even = y;
        }
    }
}

/* dq, dk, dv and, where it is wanted, dbias [B, H, R], of the gradient d of out */
void attend_tiles_backward(const bf16 *q, const bf16 *k, const bf16 *v, const float *bias, const int32_t *first, const int32_t *last, const bf16 *out, const float *logs, const bf16 *d, bf16 *dq, bf16 *dk, bf16 *dv, float *dbias, long B, long H, long G, long T, long S, long K, long R, float scale) {
    long P = UP(K, STEP), M = UP(T, STEP), N = UP(S, STEP), L = M > N ? M : N, steps = P / STEP, wide = P / 16;
    _Pragma("omp parallel")
    {
        char *memory = aligned_alloc(64, UP(2 * P * (3 * N + 2 * L + 4 * M) + 4 * P * (2 * N + M) + 4 * (6 * M + 2 * N) + 8 * STEP * SIDE + 6 * SIDE * SIDE + 4096, 64)), *at = memory; start_tiles();
        bf16 *key_rows = (bf16 *)piece(&at, 2 * N * P), *value_rows = (bf16 *)piece(&at, 2 * N * P), *key_columns = (bf16 *)piece(&at, 2 * N * P);
        bf16 *rows = (bf16 *)piece(&at, 2 * L * P), *some = (bf16 *)piece(&at, 2 * L * P);
        bf16 *q_across = (bf16 *)piece(&at, 2 * M * P), *q_pairs = (bf16 *)piece(&at, 2 * M * P), *d_across = (bf16 *)piece(&at, 2 * M * P), *d_pairs = (bf16 *)piece(&at, 2 * M * P);
        float *key_sum = (float *)piece(&at, 4 * N * P), *value_sum = (float *)piece(&at, 4 * N * P), *query_sum = (float *)piece(&at, 4 * M * P);
        int32_t *from = (int32_t *)piece(&at, 4 * M), *to = (int32_t *)piece(&at, 4 * M); float *log = (float *)piece(&at, 4 * M), *delta = (float *)piece(&at, 4 * M);
        float *turned = (float *)piece(&at, 4 * (M + N)), *dturned = (float *)piece(&at, 4 * (M + N)); /* bias in the order of query - key */
        float *s = (float *)piece(&at, 4 * STEP * SIDE), *dp = (float *)piece(&at, 4 * STEP * SIDE);
        bf16 *p = (bf16 *)piece(&at, 2 * SIDE * SIDE), *ds = (bf16 *)piece(&at, 2 * SIDE * SIDE), *ds_pairs = (bf16 *)piece(&at, 2 * SIDE * SIDE);
        sight *seen = malloc(M / STEP * sizeof(sight));
        _Pragma("omp for schedule(dynamic)")
        for (long bg = 0; bg < B * G; bg++) {
            long b = bg / G, ka = K, va = K; const bf16 *keys = padded(key_rows, k + bg * S * K, &ka, S, K, N, P), *values = padded(value_rows, v + bg * S * K, &va, S, K, N, P);
            across(some, keys, ka, N, P); columns(key_columns, some, N, P); memset(key_sum, 0, 4 * N * P); memset(value_sum, 0, 4 * N * P);
            memset(from, 0, 4 * M); memset(to, 0, 4 * M); memcpy(from, first + b * T, 4 * T); memcpy(to, last + b * T, 4 * T);
            for (long i = 0; i < M; i += STEP) seen[i / STEP] = sight_of(from + i, to + i, S);
            for (long h = bg % G * (H / G); h < (bg % G + 1) * (H / G); h++) {
                long qa = K, da = H * K; const bf16 *x = padded(rows, q + (b * H + h) * T * K, &qa, T, K, M, P); across(q_across, x, qa, M, P); pairs(q_pairs, x, qa, M, P);
                x = padded(rows, d + (b * T * H + h) * K, &da, T, K, M, P); across(d_across, x, da, M, P); pairs(d_pairs, x, da, M, P);
                memset(query_sum, 0, 4 * M * P); memset(log, 0, 4 * M); memcpy(log, logs + (b * H + h) * T, 4 * T); memset(delta, 0, 4 * M);
                for (long i = 0; i < T; i++) { const bf16 *o = out + ((b * T + i) * H + h) * K; float a = 0; for (long c = 0; c < K; c++) a += load_bf16(o[c]) * load_bf16(x[i * da + c]); delta[i] = a; }
                if (bias) for (long x = 0; x < M + N; x++) { long r = N + T - 2 - x; turned[x] = r >= 0 && r < R ? bias[h * R + r] : 0.f; dturned[x] = 0.f; }
                for (long k0 = 0; k0 < N; k0 += SIDE) for (long q0 = 0; q0 < M; q0 += SIDE) {
                    long kn = (N - k0 < SIDE ? N - k0 : SIDE) / STEP, qn = (M - q0 < SIDE ? M - q0 : SIDE) / STEP, begin[2][SIDE / STEP], end[2][SIDE / STEP] = {{0}}, any = 0;
                    for (long x = 0; x < SIDE / STEP; x++) begin[0][x] = begin[1][x] = SIDE;
                    for (long x = 0; x < kn; x++) for (long y = 0; y < qn; y++) if (meets(seen[q0 / STEP + y], k0 + x * STEP)) {
                        any = 1; begin[0][x] = y < begin[0][x] ? y : begin[0][x]; end[0][x] = y + 1; begin[1][y] = x < begin[1][y] ? x : begin[1][y]; end[1][y] = x + 1;
                    }
                    if (!any) continue;
                    for (long x = 0; x < kn; x++) {
                        long j = k0 + x * STEP; bf16 *px = p + x * STEP * SIDE, *dsx = ds + x * STEP * SIDE, *both = ds_pairs + x * (SIDE / 16) * TILE_SIZE;
                        for (long y = begin[0][x]; y < end[0][x]; y++) {
                            const bf16 *t = q_across + (q0 / 16 + 2 * y) * steps * TILE_SIZE, *u = d_across + (q0 / 16 + 2 * y) * steps * TILE_SIZE;
                            product(s + y * STEP * STEP, STEP, keys + j * ka, ka, STEP, t, t + steps * TILE_SIZE, TILE_SIZE, steps, 0);
                            product(dp + y * STEP * STEP, STEP, values + j * va, va, STEP, u, u + steps * TILE_SIZE, TILE_SIZE, steps, 0);
                        }
                        for (long y = 0; y < qn; y++) {
                            long i = q0 + y * STEP, x0 = i - j + N - 1;
                            if (y >= begin[0][x] && y < end[0][x]) { turn_scores(s + y * STEP * STEP, dp + y * STEP * STEP, bias ? turned + x0 : 0, dbias ? dturned + x0 : 0, log + i, delta + i, from + i, to + i, j, scale, px + y * STEP, dsx + y * STEP, both + 2 * y * TILE_SIZE); continue; }
                            for (int r = 0; r < STEP; r++) { memset(px + r * SIDE + y * STEP, 0, 2 * STEP); memset(dsx + r * SIDE + y * STEP, 0, 2 * STEP); }
                            memset(both + 2 * y * TILE_SIZE, 0, 4 * TILE_SIZE);
                        }
                    }
                    for (long x = 0; x < kn; x++) if (end[0][x]) for (long c = 0; c < P; c += STEP) {
                        long y = begin[0][x], n = end[0][x] - y, o = (k0 + x * STEP) * P + c, t = ((q0 / STEP + y) * wide + c / 16) * TILE_SIZE, a = x * STEP * SIDE + y * STEP;
                        product(value_sum + o, P, p + a, SIDE, STEP, d_pairs + t, d_pairs + t + TILE_SIZE, wide * TILE_SIZE, n, 1);
                        product(key_sum + o, P, ds + a, SIDE, STEP, q_pairs + t, q_pairs + t + TILE_SIZE, wide * TILE_SIZE, n, 1);
                    }
                    for (long y = 0; y < qn; y++) if (end[1][y]) for (long c = 0; c < P; c += STEP) {
                        long x = begin[1][y]; const bf16 *t = ds_pairs + (x * (SIDE / 16) + 2 * y) * TILE_SIZE;
                        product(query_sum + (q0 / STEP + y) * P * STEP + c * STEP, STEP, key_columns + (k0 / STEP + x) * P * STEP + c * STEP, STEP, P * STEP, t, t + TILE_SIZE, SIDE / 16 * TILE_SIZE, end[1][y] - x, 1);
                    }
                }
                uncolumns(dq + (b * H + h) * T * K, query_sum, T, K, P);
                if (dbias) for (long r = 0; r < R; r++) dbias[(b * H + h) * R + r] = dturned[N + T - 2 - r];
            }
            for (long j = 0; j < S; j++) for (long c = 0; c < K; c++) { dk[(bg * S + j) * K + c] = store_bf16(key_sum[j * P + c]); dv[(bg * S + j) * K + c] = store_bf16(value_sum[j * P + c]); }
        }
        free(seen); free(memory); _tile_release();
    }
}
#endif

/* whether this processor and this system let us use tiles; asking Linux is what makes them usable */
void tiles_allowed(int64_t *answer) {
    *answer = 0;
#ifdef TILES
    *answer = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
#endif
}

#define TYPE bf16
#define SUFFIX bf16
#define LD load_bf16
#define ST store_bf16
#include "kernels.c"
#undef TYPE
#undef SUFFIX
#undef LD
#undef ST
#define TYPE float
#define SUFFIX f32
#define LD load_f32
#define ST store_f32
#include "kernels.c"

#else

/* the largest of a[lo .. hi); said to be a reduction, because a compiler that minds NaN does not vectorise it otherwise */
static inline float NAME(largest)(const TYPE *restrict a, long lo, long hi) {
    float top = -1e30f;
    _Pragma("omp simd reduction(max:top)")
    for (long j = lo; j < hi; j++) { float v = LD(a[j]); top = v > top ? v : top; }
    return top;
}

void NAME(rms_norm)(const TYPE *restrict x, const float *restrict w, TYPE *restrict y, float *restrict rstd, long n, long c, float eps) {
    PARALLEL
    for (long i = 0; i < n; i++) {
        const TYPE *restrict a = x + i * c; TYPE *restrict o = y + i * c; float s = 0;
        for (long j = 0; j < c; j++) { float v = LD(a[j]); s += v * v; }
        float r = 1.f / sqrtf(s / c + eps); rstd[i] = r;
        for (long j = 0; j < c; j++) o[j] = ST(LD(a[j]) * r * w[j]);
    }
}

/* dx, and the gradient of the gain in PARTS partial sums */
void NAME(rms_norm_backward)(const TYPE *restrict dy, const TYPE *restrict x, const float *restrict w, const float *restrict rstd, TYPE *restrict dx, float *restrict dw, long n, long c) {
    PARALLEL
    for (long part = 0; part < PARTS; part++) {
        float *restrict gw = dw + part * c; memset(gw, 0, 4 * c);
        for (long i = part * n / PARTS; i < (part + 1) * n / PARTS; i++) {
            const TYPE *restrict d = dy + i * c, *restrict a = x + i * c; TYPE *restrict o = dx + i * c; float s = 0, r = rstd[i];
            for (long j = 0; j < c; j++) { float xh = LD(a[j]) * r, g = LD(d[j]); gw[j] += g * xh; s += g * w[j] * xh; }
            s /= c;
            for (long j = 0; j < c; j++) o[j] = ST(r * (LD(d[j]) * w[j] - LD(a[j]) * r * s));
        }
    }
}

void NAME(layer_norm)(const TYPE *restrict x, const float *restrict w, const float *restrict shift, TYPE *restrict y, float *restrict means, float *restrict rstd, long n, long c, float eps) {
    PARALLEL
    for (long i = 0; i < n; i++) {
        const TYPE *restrict a = x + i * c; TYPE *restrict o = y + i * c; float m = 0, s = 0;
        for (long j = 0; j < c; j++) m += LD(a[j]);
        m /= c;
        for (long j = 0; j < c; j++) { float v = LD(a[j]) - m; s += v * v; }
        float r = 1.f / sqrtf(s / c + eps); means[i] = m; rstd[i] = r;
        if (shift) for (long j = 0; j < c; j++) o[j] = ST((LD(a[j]) - m) * r * w[j] + shift[j]);
        else for (long j = 0; j < c; j++) o[j] = ST((LD(a[j]) - m) * r * w[j]);
    }
}

/* dx, and the gradients of gain and (where dshift is set) shift in PARTS partial sums */
void NAME(layer_norm_backward)(const TYPE *restrict dy, const TYPE *restrict x, const float *restrict w, const float *restrict means, const float *restrict rstd, TYPE *restrict dx, float *restrict dw, float *restrict dshift, long n, long c) {
    PARALLEL
    for (long part = 0; part < PARTS; part++) {
        float *restrict gw = dw + part * c, *restrict gs = dshift ? dshift + part * c : 0; memset(gw, 0, 4 * c); if (gs) memset(gs, 0, 4 * c);
        for (long i = part * n / PARTS; i < (part + 1) * n / PARTS; i++) {
            const TYPE *restrict d = dy + i * c, *restrict a = x + i * c; TYPE *restrict o = dx + i * c; float s = 0, t = 0, r = rstd[i], m = means[i];
            for (long j = 0; j < c; j++) { float xh = (LD(a[j]) - m) * r, g = LD(d[j]); gw[j] += g * xh; s += g * w[j] * xh; t += g * w[j]; }
            if (gs) for (long j = 0; j < c; j++) gs[j] += LD(d[j]);
            s /= c; t /= c;
            for (long j = 0; j < c; j++) o[j] = ST(r * (LD(d[j]) * w[j] - t - (LD(a[j]) - m) * r * s));
        }
    }
}

/* the sum of each column of x [n, c], in PARTS partial sums */
void NAME(column_sums)(const TYPE *restrict x, float *restrict sums, long n, long c) {
    PARALLEL
    for (long part = 0; part < PARTS; part++) {
        float *restrict s = sums + part * c; memset(s, 0, 4 * c);
        for (long i = part * n / PARTS; i < (part + 1) * n / PARTS; i++) { const TYPE *restrict a = x + i * c; for (long j = 0; j < c; j++) s[j] += LD(a[j]); }
    }
}

#define BLOCK 4096 /* numbers that one thread takes at a time where rows do not matter */
#define ACTIVATION(act) \
    void NAME(act)(const TYPE *restrict x, TYPE *restrict y, long n) { \
        PARALLEL \
        for (long i = 0; i < n; i += BLOCK) for (long j = i; j < (i + BLOCK < n ? i + BLOCK : n); j++) y[j] = ST(act##_of(LD(x[j])).value); \
    } \
    void NAME(act##_backward)(const TYPE *restrict x, const TYPE *restrict dy, TYPE *restrict dx, long n) { \
        PARALLEL \
        for (long i = 0; i < n; i += BLOCK) for (long j = i; j < (i + BLOCK < n ? i + BLOCK : n); j++) dx[j] = ST(LD(dy[j]) * act##_of(LD(x[j])).slope); \
    }
ACTIVATION(relu)
ACTIVATION(gelu)
ACTIVATION(gelu_tanh)

/* y [n, f] = act(gate) * up of gate_up [n, 2f] */
#define GATED(act) \
    void NAME(act##_gated)(const TYPE *restrict gate_up, TYPE *restrict y, long n, long f) { \
        PARALLEL \
        for (long i = 0; i < n; i++) { \
            const TYPE *restrict g = gate_up + i * 2 * f, *restrict u = g + f; TYPE *restrict o = y + i * f; \
            for (long j = 0; j < f; j++) o[j] = ST(act##_of(LD(g[j])).value * LD(u[j])); \
        } \
    } \
    void NAME(act##_gated_backward)(const TYPE *restrict gate_up, const TYPE *restrict dy, TYPE *restrict dgate_up, long n, long f) { \
        PARALLEL \
        for (long i = 0; i < n; i++) { \
            const TYPE *restrict g = gate_up + i * 2 * f, *restrict u = g + f, *restrict d = dy + i * f; TYPE *restrict dg = dgate_up + i * 2 * f, *restrict du = dg + f; \
            for (long j = 0; j < f; j++) { curve a = act##_of(LD(g[j])); float z = LD(d[j]); du[j] = ST(z * a.value); dg[j] = ST(z * LD(u[j]) * a.slope); } \
        } \
    }
GATED(silu)
GATED(gelu)
GATED(gelu_tanh)

/* qkv [B, T, H + 2G, K] -> q [B, H, T, K], k and v [B, G, T, K]; q and k normalised by their gains where norm is set,
 * and turned by the angles of their positions where there are cosines */
void NAME(split_heads)(const TYPE *restrict qkv, const float *restrict wq, const float *restrict wk, const float *restrict cosines, const float *restrict sines, const int64_t *restrict positions,
                       TYPE *restrict q, TYPE *restrict k, TYPE *restrict v, float *restrict rstd, long B, long T, long H, long G, long K, float eps, long norm) {
    long half = K / 2, S = H + 2 * G;
    PARALLEL
    for (long bt = 0; bt < B * T; bt++) {
        long b = bt / T, t = bt % T; const TYPE *row = qkv + bt * S * K;
        const float *c = cosines ? cosines + positions[bt] * half : 0, *s = cosines ? sines + positions[bt] * half : 0;
        for (long h = 0; h < H + G; h++) {
            const TYPE *z = row + h * K; const float *w = h < H ? wq : wk;
            TYPE *o = h < H ? q + ((b * H + h) * T + t) * K : k + ((b * G + h - H) * T + t) * K; float r = 1.f;
            if (norm) {
                float ss = 0; for (long j = 0; j < K; j++) { float a = LD(z[j]); ss += a * a; }
                r = 1.f / sqrtf(ss / K + eps); rstd[bt * (H + G) + h] = r;
            }
            if (norm && c)
                for (long j = 0; j < half; j++) {
                    float x = LD(z[j]) * r * w[j], y = LD(z[j + half]) * r * w[j + half];
                    o[j] = ST(x * c[j] - y * s[j]); o[j + half] = ST(y * c[j] + x * s[j]);
                }
            else if (norm) for (long j = 0; j < K; j++) o[j] = ST(LD(z[j]) * r * w[j]);
            else if (c)
                for (long j = 0; j < half; j++) {
                    float x = LD(z[j]), y = LD(z[j + half]);
                    o[j] = ST(x * c[j] - y * s[j]); o[j + half] = ST(y * c[j] + x * s[j]);
                }
            else memcpy(o, z, sizeof(TYPE) * K);
        }
        for (long h = 0; h < G; h++) memcpy(v + ((b * G + h) * T + t) * K, row + (H + G + h) * K, sizeof(TYPE) * K);
    }
}

void NAME(split_heads_backward)(const TYPE *restrict dq, const TYPE *restrict dk, const TYPE *restrict dv, const TYPE *restrict qkv, const float *restrict wq, const float *restrict wk, const float *restrict rstd,
                                const float *restrict cosines, const float *restrict sines, const int64_t *restrict positions, TYPE *restrict dqkv, float *restrict dwq, float *restrict dwk,
                                long B, long T, long H, long G, long K, long norm) {
    long half = K / 2, S = H + 2 * G, n = B * T;
    PARALLEL
    for (long part = 0; part < PARTS; part++) {
        float *gq = dwq + part * K, *gk = dwk + part * K, g[MOST_HEAD_SIZE];
        memset(gq, 0, 4 * K); memset(gk, 0, 4 * K);
        for (long bt = part * n / PARTS; bt < (part + 1) * n / PARTS; bt++) {
            long b = bt / T, t = bt % T; const TYPE *row = qkv + bt * S * K; TYPE *out = dqkv + bt * S * K;
            const float *c = cosines ? cosines + positions[bt] * half : 0, *s = cosines ? sines + positions[bt] * half : 0;
            for (long h = 0; h < H + G; h++) {
                const TYPE *z = row + h * K; TYPE *o = out + h * K;
                const TYPE *d = h < H ? dq + ((b * H + h) * T + t) * K : dk + ((b * G + h - H) * T + t) * K;
                const float *w = h < H ? wq : wk; float *gw = h < H ? gq : gk;
                if (!norm && !c) { memcpy(o, d, sizeof(TYPE) * K); continue; }
                if (c)
                    for (long j = 0; j < half; j++) {
                        float x = LD(d[j]), y = LD(d[j + half]);
                        g[j] = x * c[j] + y * s[j]; g[j + half] = y * c[j] - x * s[j];
                    }
                else for (long j = 0; j < K; j++) g[j] = LD(d[j]);
                if (norm) {
                    float r = rstd[bt * (H + G) + h], dot = 0;
                    for (long j = 0; j < K; j++) { float zh = LD(z[j]) * r; gw[j] += g[j] * zh; dot += g[j] * w[j] * zh; }
                    dot /= K;
                    for (long j = 0; j < K; j++) o[j] = ST(r * (g[j] * w[j] - LD(z[j]) * r * dot));
                } else
                    for (long j = 0; j < K; j++) o[j] = ST(g[j]);
            }
            for (long h = 0; h < G; h++) memcpy(out + (H + G + h) * K, dv + ((b * G + h) * T + t) * K, sizeof(TYPE) * K);
        }
    }
}

/* the keys lo .. hi of a block, counted from its first, that query i of row b sees; none is an empty range */
#define SEEN(b, i) \
    long lo = first[(b) * T + (i)] - k0, hi = last[(b) * T + (i)] - k0; \
    lo = lo < 0 ? 0 : lo; hi = hi > W ? W : hi;

/* softmax of scale * scores + bias, in place over scores [B, H, Q, W] of the queries q0 .. q0 + Q and the keys k0 .. k0 + W.
 * Query i sees the keys first[b, i] .. last[b, i]; its row is 0 where there are none. bias [H, R] has a column for each
 * key - query + T - 1, or is absent. */
void NAME(softmax)(TYPE *restrict scores, const float *restrict bias, const int32_t *restrict first, const int32_t *restrict last, long B, long H, long Q, long W, long T, long q0, long k0, long R, float scale) {
    _Pragma("omp parallel")
    {
        float *restrict e = malloc(4 * W); /* the row before it is rounded */
        _Pragma("omp for schedule(static)")
        for (long row = 0; row < B * H * Q; row++) {
            long i = row % Q + q0; TYPE *restrict a = scores + row * W; SEEN(row / (H * Q), i)
            if (hi <= lo) { memset(a, 0, sizeof(TYPE) * W); continue; }
            float top = -1e30f, sum = 0;
            if (bias) {
                const float *restrict c = bias + row / Q % H * R + k0 - i + T - 1;
                _Pragma("omp simd reduction(max:top)")
                for (long j = lo; j < hi; j++) { float v = LD(a[j]) * scale + c[j]; e[j] = v; top = v > top ? v : top; }
                for (long j = lo; j < hi; j++) { e[j] = fast_exp(e[j] - top); sum += e[j]; }
            } else {
                top = NAME(largest)(a, lo, hi);
                for (long j = lo; j < hi; j++) { e[j] = fast_exp((LD(a[j]) - top) * scale); sum += e[j]; }
            }
            sum = 1.f / sum;
            memset(a, 0, sizeof(TYPE) * lo); memset(a + hi, 0, sizeof(TYPE) * (W - hi));
            for (long j = lo; j < hi; j++) a[j] = ST(e[j] * sum);
        }
        free(e);
    }
}

/* in place of the gradient d of the probabilities p, that of the scores; where dbias [B, H, Q + W - 1] is set, the sums of
 * what each diagonal adds to the gradient of the bias, the column of the last query and the first key first */
void NAME(softmax_backward)(const TYPE *restrict p, TYPE *restrict d, float *restrict dbias, const int32_t *restrict first, const int32_t *restrict last, long B, long H, long Q, long W, long T, long q0, long k0, float scale) {
    long rows = dbias ? Q : 1; /* that one thread takes together: those that share sums */
    PARALLEL
    for (long row0 = 0; row0 < B * H * Q; row0 += rows) {
        if (dbias) memset(dbias + row0 / Q * (Q + W - 1), 0, 4 * (Q + W - 1));
        for (long row = row0; row < row0 + rows; row++) {
            const TYPE *restrict a = p + row * W; TYPE *restrict g = d + row * W; SEEN(row / (H * Q), row % Q + q0)
            if (hi <= lo) { memset(g, 0, sizeof(TYPE) * W); continue; }
            float dot = 0; for (long j = lo; j < hi; j++) dot += LD(a[j]) * LD(g[j]);
            if (dbias) { float *restrict s = dbias + row0 / Q * (Q + W - 1) + Q - 1 - row % Q; for (long j = lo; j < hi; j++) s[j] += LD(a[j]) * (LD(g[j]) - dot); }
            memset(g, 0, sizeof(TYPE) * lo); memset(g + hi, 0, sizeof(TYPE) * (W - hi));
            for (long j = lo; j < hi; j++) g[j] = ST(LD(a[j]) * (LD(g[j]) - dot) * scale);
        }
    }
}

/* the rows k0 .. k0 + w of each matrix of sums [n, S, K] += part [n, w, K] */
void NAME(add_rows)(const TYPE *restrict part, float *restrict sums, long n, long S, long K, long k0, long w) {
    PARALLEL
    for (long i = 0; i < n; i++) { const TYPE *restrict a = part + i * w * K; float *restrict o = sums + (i * S + k0) * K; for (long j = 0; j < w * K; j++) o[j] += LD(a[j]); }
}

/* y = x + branch * keep / (1 - rate); the same call with the gradient as branch and no x is its backward */
void NAME(dropout_add)(const TYPE *restrict x, const TYPE *restrict branch, TYPE *restrict y, long n, float rate, long seed) {
    uint32_t limit = (uint32_t)(rate * 4294967296.0); float up = 1.f / (1.f - rate);
    PARALLEL
    for (long block = 0; block < (n + 4095) / 4096; block++) {
        long end = (block + 1) * 4096 < n ? (block + 1) * 4096 : n;
        for (long i = block * 4096; i < end; i++) {
            float b = hash32((uint64_t)seed, (uint64_t)i) >= limit ? LD(branch[i]) * up : 0.f;
            y[i] = ST(x ? LD(x[i]) + b : b);
        }
    }
}

/* per row: nats of the target and, in place of the logits, weight * (softmax - target) */
void NAME(cross_entropy)(TYPE *restrict logits, const int64_t *restrict targets, const float *restrict weights, float *restrict nats, long n, long V) {
    PARALLEL
    for (long i = 0; i < n; i++) {
        TYPE *restrict a = logits + i * V; float w = weights[i], top = NAME(largest)(a, 0, V), sum = 0;
        for (long j = 0; j < V; j++) sum += fast_exp(LD(a[j]) - top);
        float target = LD(a[targets[i]]), inverse = w / sum;
        nats[i] = logf(sum) + top - target;
        for (long j = 0; j < V; j++) { float g = fast_exp(LD(a[j]) - top) * inverse; a[j] = ST(j == targets[i] ? g - w : g); }
    }
}
#endif
