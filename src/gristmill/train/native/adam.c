/* AdamW in one pass over memory, from gradients as they are stored, and how long a gradient is.
 *
 * Compiled once by the machine's C compiler where it has one; `_plain_step` in optimizer.py says the same in torch, and is
 * the reference in tests. Arithmetic is float32 (sums of squares float64). Loops are split into fixed parts, so results do not
 * depend on the number of threads. This file includes itself twice, for each storage type of the gradients.
 */
#ifndef TYPE
#include "storage.h"
#define PARTS 64 /* sums are over this many fixed parts */
#define PARALLEL _Pragma("omp parallel for schedule(static)")

#define TYPE float
#define LD load_f32
#define SUFFIX f32
#include "adam.c"
#undef TYPE
#undef LD
#undef SUFFIX
#define TYPE bf16
#define LD load_bf16
#define SUFFIX bf16
#include "adam.c"
#else

/* sums[part] of squares; the caller adds up the parts */
void NAME(squares)(const TYPE *restrict g, double *restrict sums, long n) {
    PARALLEL
    for (long part = 0; part < PARTS; part++) {
        double total = 0;
        for (long i = n * part / PARTS, end = n * (part + 1) / PARTS; i < end;) {
            long stop = i + 4096 < end ? i + 4096 : end;
            float sum = 0;
            _Pragma("omp simd reduction(+:sum)")
            for (long j = i; j < stop; j++) { float x = LD(g[j]); sum += x * x; }
            total += sum; i = stop;
        }
        sums[part] = total;
    }
}

/* m, v: running means of gradients and of their squares. Master <- master (1 - rate decay) - step m / (sqrt(v) root + epsilon),
 * where the caller has put the corrections of both means into step and root. */
void NAME(adam)(const TYPE *restrict g, float *restrict master, float *restrict m, float *restrict v, long n,
                float shrink, float keep, float step, float root, float beta1, float beta2, float epsilon) {
    PARALLEL
    for (long part = 0; part < PARTS; part++)
        _Pragma("omp simd")
        for (long i = n * part / PARTS; i < n * (part + 1) / PARTS; i++) {
            float x = LD(g[i]) * shrink;
            float a = m[i] = beta1 * m[i] + (1.f - beta1) * x;
            float b = v[i] = beta2 * v[i] + (1.f - beta2) * x * x;
            master[i] = master[i] * keep - step * a / (sqrtf(b) * root + epsilon);
        }
}
#endif
