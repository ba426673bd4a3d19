/* LSTM and GRU over runs of positions, forward and backward: what no matrix product does for all positions at once.
 *
 * A run is a document in a packed row; its state starts from zero. Runs come in groups of about equal length, each of
 * which is one thread's from its first position to its last: threads never wait for each other, and no sum crosses
 * them, so results depend neither on their number nor on the grouping. The weights of the state are read once for a
 * group at each position, in panels that stay in the nearest cache while all rows pass by. Everything is float32, but
 * for products with bfloat16 weights where the processor has tiles for them. `_plain` in recurrence.py says the same
 * in torch, and is the reference in tests.
 *
 *     n, H         positions of all rows, size of the state
 *     first, size  of each run: its first position, and how many it has; the longest runs first
 *     w            the state's weights in panels, in bfloat16 where `tiles`
 *     values       (n, 4H), kept for the backward pass: LSTM's gates i f g o; GRU's r, z, what r multiplies, and the
 *                  candidate
 */
#include <stdlib.h>
#include "storage.h"

#define PANEL 32 /* columns of w that are stored together */
#define ROWS 8   /* rows whose sums are in registers at a time: 16 registers of 16 numbers */
#define GROUPS _Pragma("omp parallel for schedule(dynamic, 1)") for (long from = 0; from < runs; from += group)

#define CELL static __attribute__((noinline)) void
#define EACH _Pragma("omp simd") for (long j = 0; j < H; j++)

static inline float sigmoid(float x) { return 1.f / (1.f + fast_exp(-x)); }
static inline float tangent(float x) { return 2.f / (1.f + fast_exp(-2.f * x)) - 1.f; }

/* --- y = x w for some rows: x is (rows, K), w (K, M) in panels (M / PANEL, K, PANEL), y (rows, M) up to whole panels */

typedef float vector __attribute__((vector_size(64), aligned(4)));

static inline __attribute__((always_inline)) void block(const long R, const float *x, const float *panel, float *y, long K, long stride) {
    vector sum[ROWS][2];
    for (long r = 0; r < R; r++) sum[r][0] = sum[r][1] = (vector){0};
    for (long k = 0; k < K; k++) {
        vector a = *(const vector *)(panel + k * PANEL), b = *(const vector *)(panel + k * PANEL + 16);
        for (long r = 0; r < R; r++) { sum[r][0] += x[r * K + k] * a; sum[r][1] += x[r * K + k] * b; }
    }
    for (long r = 0; r < R; r++) { *(vector *)(y + r * stride) = sum[r][0]; *(vector *)(y + r * stride + 16) = sum[r][1]; }
}

static inline long padded(long n) { return (n + PANEL - 1) / PANEL * PANEL; }

static void multiply_wide(const float *x, const float *w, float *y, long rows, long K, long M) {
    long stride = padded(M);
    for (long m = 0; m < M; m += PANEL, w += K * PANEL)
        for (long r = 0, n; r < rows; r += n) {
            long left = rows - r;
            n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const float *a = x + r * K; float *o = y + r * stride + m;
            if (n == 8) block(8, a, w, o, K, stride);
            else if (n == 4) block(4, a, w, o, K, stride);
            else if (n == 2) block(2, a, w, o, K, stride);
            else block(1, a, w, o, K, stride);
        }
}

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* whether the system lets this process use the processor's tiles; it has to be asked */
long has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0; }

/* the same, x rounded to bfloat16, w in bfloat16: (M / PANEL, K / 32, 2 x 16 columns, 16 pairs of rows) */
static void multiply_tiles(const float *x, const bf16 *w, float *y, long rows, long K, long M) {
    long deep = padded(K), stride = padded(M), chunks = deep / 32;
    bf16 narrow[16 * deep];
    for (long from = 0; from < rows; from += 16) {
        long R = rows - from < 16 ? rows - from : 16;
        for (long r = 0; r < R; r++) {
            for (long k = 0; k < K; k++) narrow[r * deep + k] = store_bf16(x[(from + r) * K + k]);
            for (long k = K; k < deep; k++) narrow[r * deep + k] = 0;
        }
        struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
        for (int i = 0; i < 8; i++) { shape.bytes[i] = 64; shape.rows[i] = i < 5 ? R : 16; }
        _tile_loadconfig(&shape);
        const bf16 *p = w;
        float *o = y + from * stride;
        long m = 0;
        for (; m + 64 <= stride; m += 64, p += 64 * deep) { /* two panels: four sums for each tile of x */
            const bf16 *q = p + 32 * deep;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            for (long k = 0; k < chunks; k++) {
                _tile_loadd(4, narrow + 32 * k, 2 * deep);
                _tile_loadd(5, p + k * 1024, 64); _tile_dpbf16ps(0, 4, 5);
                _tile_loadd(6, p + k * 1024 + 512, 64); _tile_dpbf16ps(1, 4, 6);
                _tile_loadd(7, q + k * 1024, 64); _tile_dpbf16ps(2, 4, 7);
                _tile_loadd(5, q + k * 1024 + 512, 64); _tile_dpbf16ps(3, 4, 5);
            }
            _tile_stored(0, o + m, 4 * stride); _tile_stored(1, o + m + 16, 4 * stride);
            _tile_stored(2, o + m + 32, 4 * stride); _tile_stored(3, o + m + 48, 4 * stride);
        }
        if (m < stride) {
            _tile_zero(0); _tile_zero(1);
            for (long k = 0; k < chunks; k++) {
                _tile_loadd(4, narrow + 32 * k, 2 * deep);
                _tile_loadd(5, p + k * 1024, 64); _tile_dpbf16ps(0, 4, 5);
                _tile_loadd(6, p + k * 1024 + 512, 64); _tile_dpbf16ps(1, 4, 6);
            }
            _tile_stored(0, o + m, 4 * stride); _tile_stored(1, o + m + 16, 4 * stride);
        }
    }
    _tile_release();
}
#else
long has_tiles(void) { return 0; }
static void multiply_tiles(const float *x, const bf16 *w, float *y, long rows, long K, long M) {}
#endif

static void multiply(const float *x, const void *w, float *y, long rows, long K, long M, long tiles) {
    if (tiles) multiply_tiles(x, w, y, rows, K, M);
    else multiply_wide(x, w, y, rows, K, M);
}

/* --- the two cells ------------------------------------------------------------------------------------------------ */

/* how many of a group's runs reach position t */
static inline long reach(const int64_t *size, long rows, long t) {
    while (rows && size[rows - 1] <= t) rows--;
    return rows;
}

/* One position of one run: a is what the input says, b what the state says. Functions of their own, for in the loops
 * around them the compiler no longer sees that nothing overlaps. */
CELL lstm_cell(const float *restrict a, const float *restrict b, float *restrict v, float *restrict state, float *restrict cells,
                      float *restrict h, float *restrict c, long H) {
    EACH {
        float i = sigmoid(a[j] + b[j]), f = sigmoid(a[H + j] + b[H + j]), g = tangent(a[2 * H + j] + b[2 * H + j]);
        float o = sigmoid(a[3 * H + j] + b[3 * H + j]), cell = i * g + f * cells[j], out = o * tangent(cell);
        v[j] = i; v[H + j] = f; v[2 * H + j] = g; v[3 * H + j] = o;
        cells[j] = c[j] = cell; state[j] = h[j] = out;
    }
}

/* dh, later: the gradient of h from what reads it, and from the next position; cells: that of c; before: c, or nothing */
CELL lstm_slopes(const float *restrict dh, const float *restrict later, const float *restrict v, const float *restrict c,
                        const float *restrict before, float *restrict cells, float *restrict d, float *restrict s, long H) {
    EACH {
        float i = v[j], f = v[H + j], g = v[2 * H + j], o = v[3 * H + j], z = tangent(c[j]);
        float out = dh[j] + later[j], cell = out * o * (1.f - z * z) + cells[j];
        d[j] = s[j] = cell * g * i * (1.f - i);
        d[H + j] = s[H + j] = cell * before[j] * f * (1.f - f);
        d[2 * H + j] = s[2 * H + j] = cell * i * (1.f - g * g);
        d[3 * H + j] = s[3 * H + j] = out * z * o * (1.f - o);
        cells[j] = cell * f;
    }
}

CELL gru_cell(const float *restrict a, const float *restrict b, const float *restrict bias, float *restrict v, float *restrict state,
                     float *restrict h, long H) {
    EACH {
        float r = sigmoid(a[j] + b[j]), z = sigmoid(a[H + j] + b[H + j]), u = b[2 * H + j] + bias[j];
        float n = tangent(a[2 * H + j] + r * u), out = n + z * (state[j] - n);
        v[j] = r; v[H + j] = z; v[2 * H + j] = u; v[3 * H + j] = n;
        state[j] = h[j] = out;
    }
}

/* kept: the part of the gradient of h that passes by the weights */
CELL gru_slopes(const float *restrict dh, const float *restrict later, const float *restrict v, const float *restrict before,
                       float *restrict kept, float *restrict d, float *restrict s, long H) {
    EACH {
        float r = v[j], z = v[H + j], u = v[2 * H + j], n = v[3 * H + j];
        float out = dh[j] + later[j] + kept[j], candidate = out * (1.f - z) * (1.f - n * n);
        d[j] = s[j] = candidate * u * r * (1.f - r);
        d[H + j] = s[H + j] = out * (before[j] - n) * z * (1.f - z);
        d[2 * H + j] = s[2 * H + j] = candidate * r;
        d[3 * H + j] = candidate;
        kept[j] = out * z;
    }
}

/* gates: (n, 4H), what the input says; w: (H, 4H); h, c: (n, H) */
void lstm_forward(const float *gates, const void *w, const int64_t *first, const int64_t *size, float *values, float *h, float *c,
                  long runs, long group, long H, long tiles) {
    long M = padded(4 * H);
    GROUPS {
        long rows = runs - from < group ? runs - from : group;
        float *state = calloc(rows * (2 * H + M), 4), *cells = state + rows * H, *said = cells + rows * H;
        for (long t = 0; t < size[from]; t++) {
            rows = reach(size + from, rows, t);
            if (t) multiply(state, w, said, rows, H, 4 * H, tiles);
            for (long r = 0; r < rows; r++) {
                long at = first[from + r] + t;
                lstm_cell(gates + at * 4 * H, said + r * M, values + at * 4 * H, state + r * H, cells + r * H, h + at * H, c + at * H, H);
            }
        }
        free(state);
    }
}

/* dh: (n, H), from what reads h; w: (4H, H); d: (n, 4H), the gradient of the gates before their curves */
void lstm_backward(const float *dh, const void *w, const int64_t *first, const int64_t *size, const float *values, const float *c, float *d,
                   long runs, long group, long H, long tiles) {
    long M = padded(H);
    GROUPS {
        long all = runs - from < group ? runs - from : group;
        float *later = calloc(all * (M + 5 * H) + H, 4), *cells = later + all * M, *slopes = cells + all * H, *zero = slopes + all * 4 * H;
        for (long t = size[from] - 1; t >= 0; t--) {
            long rows = reach(size + from, all, t);
            for (long r = 0; r < rows; r++) {
                long at = first[from + r] + t;
                lstm_slopes(dh + at * H, later + r * M, values + at * 4 * H, c + at * H, t ? c + (at - 1) * H : zero, cells + r * H,
                            d + at * 4 * H, slopes + r * 4 * H, H);
            }
            if (t) multiply(slopes, w, later, rows, 4 * H, H, tiles);
        }
        free(later);
    }
}

/* gates: (n, 3H), what the input says of r, z and the candidate; w: (H, 3H); bias: (H), added to what r multiplies */
void gru_forward(const float *gates, const void *w, const int64_t *first, const int64_t *size, const float *bias, float *values, float *h,
                 long runs, long group, long H, long tiles) {
    long M = padded(3 * H);
    GROUPS {
        long rows = runs - from < group ? runs - from : group;
        float *state = calloc(rows * (H + M), 4), *said = state + rows * H;
        for (long t = 0; t < size[from]; t++) {
            rows = reach(size + from, rows, t);
            if (t) multiply(state, w, said, rows, H, 3 * H, tiles);
            for (long r = 0; r < rows; r++) {
                long at = first[from + r] + t;
                gru_cell(gates + at * 3 * H, said + r * M, bias, values + at * 4 * H, state + r * H, h + at * H, H);
            }
        }
        free(state);
    }
}

/* w: (3H, H); d: (n, 4H), the gradient of r, z, what r multiplies, and the candidate, before their curves */
void gru_backward(const float *dh, const void *w, const int64_t *first, const int64_t *size, const float *values, const float *h, float *d,
                  long runs, long group, long H, long tiles) {
    long M = padded(H);
    GROUPS {
        long all = runs - from < group ? runs - from : group;
        float *later = calloc(all * (M + 4 * H) + H, 4), *kept = later + all * M, *slopes = kept + all * H, *zero = slopes + all * 3 * H;
        for (long t = size[from] - 1; t >= 0; t--) {
            long rows = reach(size + from, all, t);
            for (long r = 0; r < rows; r++) {
                long at = first[from + r] + t;
                gru_slopes(dh + at * H, later + r * M, values + at * 4 * H, t ? h + (at - 1) * H : zero, kept + r * H, d + at * 4 * H,
                           slopes + r * 3 * H, H);
            }
            if (t) multiply(slopes, w, later, rows, 3 * H, H, tiles);
        }
        free(later);
    }
}
