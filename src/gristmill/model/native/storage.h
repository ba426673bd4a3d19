/* What the compiled files share: how numbers are stored, an exponential that vectorises, names by storage type. */
#ifndef STORAGE_H
#define STORAGE_H
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

static inline float load_bf16(bf16 v) { uint32_t u = ((uint32_t)v) << 16; float f; memcpy(&f, &u, 4); return f; }
static inline bf16 store_bf16(float f) { uint32_t u; memcpy(&u, &f, 4); u += 0x7fff + ((u >> 16) & 1); return (bf16)(u >> 16); }
static inline float load_f32(float v) { return v; }
static inline float store_f32(float v) { return v; }

/* exp for x <= 88: 2^k times a polynomial (Cephes' coefficients), relative error below 3e-7; vectorises */
static inline float fast_exp(float x) {
    x = x < -87.f ? -87.f : x;
    x = x > 88.f ? 88.f : x;
    float k = floorf(x * 1.44269504f + 0.5f);
    float r = x - k * 0.693359375f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.f;
    int32_t e = ((int32_t)k + 127) << 23; float s; memcpy(&s, &e, 4);
    return p * s;
}

/* NAME(f) is f_bf16 or f_f32, as SUFFIX says */
#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(f) JOIN(f, SUFFIX)
#endif
