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
