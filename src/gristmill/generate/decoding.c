/* One token through all layers in one call: a single sequence, every weight read once, no time lost between.
 *
 * At these sizes decoding is bound by how fast the weights come from memory and by the cost of each call of a torch
 * operation, some two hundred a token. Here is neither Python nor an allocation inside a token. Sums are float32 whatever
 * the storage of weights and cache. Rows of a matrix are split over threads and no sum crosses threads, so results do
 * not depend on the number of threads. `_step` in decoding.py says the same in torch, and is the reference in tests.
 * This file includes itself twice, for each storage type.
 */
#ifndef TYPE
#include <omp.h>
#include "storage.h"

#define BARRIER _Pragma("omp barrier")
#define ROWS 4 /* rows of a matrix that are multiplied side by side: enough sums in flight to hide their latency */

/* what does not change from token to token; decoding.py fills it in */
typedef struct { long layers, width, heads, kv_heads, head_size, inner, vocabulary, layer_norm, qk_norm, rotary, gated; float epsilon; } Sizes;
typedef struct {
    const void *qkv, *out, *up, *down;
    const float *attention_norm, *attention_shift, *feed_forward_norm, *feed_forward_shift; /* shift: LayerNorm's bias */
    const float *qkv_bias, *out_bias, *up_bias, *down_bias, *query_norm, *key_norm;
} LayerWeights;

/* o = x normalised; each thread makes its own copy, which costs less than waiting for another's */
static void normalise(const float *x, const float *w, const float *shift, float *o, long n, float eps, long layer_norm) {
    float mean = 0, s = 0;
    if (layer_norm) { for (long j = 0; j < n; j++) mean += x[j]; mean /= n; }
    for (long j = 0; j < n; j++) { float v = x[j] - mean; s += v * v; }
    float r = 1.f / sqrtf(s / n + eps);
    for (long j = 0; j < n; j++) o[j] = (x[j] - mean) * r * w[j] + (shift ? shift[j] : 0.f);
}

/* z normalised by gain w where there is one, and its pairs (i, i + K/2) turned */
static void turn(float *z, const float *w, const float *c, const float *s, long K, float eps, long rotary) {
    if (w) { float q = 0; for (long j = 0; j < K; j++) q += z[j] * z[j]; q = 1.f / sqrtf(q / K + eps); for (long j = 0; j < K; j++) z[j] *= q * w[j]; }
    if (rotary) for (long j = 0; j < K / 2; j++) { float x = z[j], y = z[j + K / 2]; z[j] = x * c[j] - y * s[j]; z[j + K / 2] = y * c[j] + x * s[j]; }
}

static inline long part(long n, long i, long of) { return i == of ? n : (n / ROWS) * i / of * ROWS; }

#define TYPE bf16
#define SUFFIX bf16
#define LD load_bf16
#define ST store_bf16
#include "decoding.c"
#undef TYPE
#undef SUFFIX
#undef LD
#undef ST
#define TYPE float
#define SUFFIX f32
#define LD load_f32
#define ST store_f32
#include "decoding.c"

#else

/* o[i] = w[i] . x + bias[i] for rows from <= i < to; added to o where `add` */
static void NAME(multiply)(const TYPE *w, const float *x, const float *bias, float *o, long from, long to, long n, long add) {
    long i = from;
    for (; i + ROWS <= to; i += ROWS) {
        const TYPE *p = w + i * n, *q = p + n, *r = q + n, *s = r + n; float a = 0, b = 0, c = 0, d = 0;
        for (long j = 0; j < n; j++) { float v = x[j]; a += LD(p[j]) * v; b += LD(q[j]) * v; c += LD(r[j]) * v; d += LD(s[j]) * v; }
        float sums[ROWS] = {a, b, c, d};
        for (long k = 0; k < ROWS; k++) o[i + k] = sums[k] + (bias ? bias[i + k] : 0.f) + (add ? o[i + k] : 0.f);
    }
    for (; i < to; i++) {
        const TYPE *p = w + i * n; float a = 0; for (long j = 0; j < n; j++) a += LD(p[j]) * x[j];
        o[i] = a + (bias ? bias[i] : 0.f) + (add ? o[i] : 0.f);
    }
}

/* queries of one group of heads over the keys and values of columns 0 .. column, the newest of which is stored first */
static void NAME(attend)(const Sizes *z, const LayerWeights *l, float *qkv, TYPE *cache, float *scores, float *y, const float *c, const float *s,
                         long g, long column, long columns) {
    long K = z->head_size, H = z->heads, G = z->kv_heads, R = H / G;
    TYPE *keys = cache + g * columns * K, *values = cache + (G + g) * columns * K;
    float *k = qkv + (H + g) * K, *v = qkv + (H + G + g) * K, scale = 1.f / sqrtf(K);
    turn(k, l->key_norm, c, s, K, z->epsilon, z->rotary);
    for (long j = 0; j < K; j++) { keys[column * K + j] = ST(k[j]); values[column * K + j] = ST(v[j]); }
    for (long h = g * R; h < (g + 1) * R; h++) {
        float *q = qkv + h * K, *e = scores + h * columns, *o = y + h * K, top = -INFINITY, sum = 0;
        turn(q, l->query_norm, c, s, K, z->epsilon, z->rotary);
        NAME(multiply)(keys, q, 0, e, 0, column + 1, K, 0);
        for (long t = 0; t <= column; t++) top = e[t] > top ? e[t] : top;
        for (long t = 0; t <= column; t++) { e[t] = fast_exp((e[t] - top) * scale); sum += e[t]; }
        memset(o, 0, 4 * K);
        for (long t = 0; t <= column; t++) { float p = e[t] / sum; const TYPE *w = values + t * K; for (long j = 0; j < K; j++) o[j] += p * LD(w[j]); }
    }
}

/* x is the embedding of the newest token (and scratch); `logits` gets the scores of what comes after it.
 * scratch: qkv, then y, then the feed-forward layer's inner values, then scores (heads x columns) */
void NAME(decode)(const Sizes *z, const LayerWeights *layers, TYPE *const *caches, const float *norm, const float *shift, const TYPE *output,
                  const float *cosines, const float *sines, float *x, float *logits, float *scratch, long column, long columns) {
    long D = z->width, F = z->inner, HK = z->heads * z->head_size, N = HK + 2 * z->kv_heads * z->head_size;
    float *qkv = scratch, *y = qkv + N, *a = y + HK, *scores = a + 2 * F;
    long work = z->layers * D * (N + HK + 3 * F); /* below it, waiting for another thread costs more than it helps */
    _Pragma("omp parallel if (work > 1000000)")
    {
        long i = omp_get_thread_num(), of = omp_get_num_threads(); float h[D];
        for (const LayerWeights *l = layers; l < layers + z->layers; l++) {
            normalise(x, l->attention_norm, l->attention_shift, h, D, z->epsilon, z->layer_norm);
            NAME(multiply)(l->qkv, h, l->qkv_bias, qkv, part(N, i, of), part(N, i + 1, of), D, 0);
            BARRIER
            for (long g = i; g < z->kv_heads; g += of) NAME(attend)(z, l, qkv, caches[l - layers], scores, y, cosines, sines, g, column, columns);
            BARRIER
            NAME(multiply)(l->out, y, l->out_bias, x, part(D, i, of), part(D, i + 1, of), HK, 1);
            BARRIER
            normalise(x, l->feed_forward_norm, l->feed_forward_shift, h, D, z->epsilon, z->layer_norm);
            long from = part(F, i, of), to = part(F, i + 1, of);
            NAME(multiply)(l->up, h, l->up_bias, a, from, to, D, 0);
            if (z->gated) {
                NAME(multiply)((const TYPE *)l->up + F * D, h, 0, a + F, from, to, D, 0);
                for (long j = from; j < to; j++) a[j] = a[j] / (1.f + fast_exp(-a[j])) * a[F + j];
            } else
                for (long j = from; j < to; j++) a[j] = a[j] / (1.f + fast_exp(-1.5957691216f * (a[j] + .044715f * a[j] * a[j] * a[j])));
            BARRIER
            NAME(multiply)(l->down, a, l->down_bias, x, part(D, i, of), part(D, i + 1, of), F, 1);
            BARRIER
        }
        normalise(x, norm, shift, h, D, z->epsilon, z->layer_norm);
        NAME(multiply)(output, h, 0, logits, part(z->vocabulary, i, of), part(z->vocabulary, i + 1, of), D, 0);
    }
}

#endif
