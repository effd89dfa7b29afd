// Sixteen floats at a time. The compiler's vector extensions make this file plain C++: where the
// processor has no 512-bit registers, one operation here becomes two, four or sixteen.
#pragma once

#include <cstdint>
#include <cstring>
#include <cmath>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace native {

using bf16 = uint16_t;  // the upper half of a float
using Floats = float __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using FloatsInMemory = float __attribute__((vector_size(64), aligned(4), may_alias));

constexpr int LANES = 16;

#define INLINE inline __attribute__((always_inline))

INLINE Floats load(const float* from) { return *reinterpret_cast<const FloatsInMemory*>(from); }
INLINE void store(float* to, Floats x) { *reinterpret_cast<FloatsInMemory*>(to) = x; }
INLINE Ints bits_of(Floats x) { return (Ints)x; }
INLINE Floats from_bits(Ints x) { return (Floats)x; }
INLINE Floats fill(float x) {
  return Floats{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
// NaN in `x` stays NaN.
INLINE Floats at_least(float limit, Floats x) { return limit > x ? fill(limit) : x; }
INLINE Floats at_most(float limit, Floats x) { return limit < x ? fill(limit) : x; }
INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }

// Sixteen numbers in bf16 as floats.
INLINE Floats load_bf16(const bf16* from) {
  using Halves = bf16 __attribute__((vector_size(32)));
  Halves halves;
  memcpy(&halves, from, sizeof halves);
  return from_bits(__builtin_convertvector(halves, Ints) << 16);
}

// Pairwise, so that no addition waits for fifteen others.
INLINE float sum(Floats x) {
  x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return x[0] + x[1];
}
INLINE float largest(Floats x) {
  x = max(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  x = max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  x = max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return x[0] > x[1] ? x[0] : x[1];
}

// Rows become columns. Each round deals the rows out like two halves of a pack of cards.
INLINE void transpose(Ints (&rows)[LANES]) {
  for (int round = 0; round < 4; round++) {
    Ints dealt[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      dealt[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                             21, 6, 22, 7, 23);
      dealt[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                                 28, 13, 29, 14, 30, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) rows[i] = dealt[i];
  }
}

// Writes the numbers of two rows in turn.
INLINE void interleave(const bf16* first, const bf16* second, bf16* to) {
  using Halves = bf16 __attribute__((vector_size(32)));
  Halves a, b;
  memcpy(&a, first, sizeof a);
  memcpy(&b, second, sizeof b);
  using Pairs = bf16 __attribute__((vector_size(64)));
  const Pairs pairs = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                              23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                              15, 31);
  memcpy(to, &pairs, sizeof pairs);
}

// Rounds 32 floats to bf16, to nearest even.
INLINE void store_bf16(bf16* to, Floats low, Floats high) {
#ifdef __AVX512BF16__
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
#else
  for (int half = 0; half < 2; half++) {
    Floats x = half ? high : low;
    Ints bits = bits_of(x);
    bits += 0x7fff + ((bits >> 16) & 1);
    for (int i = 0; i < LANES; i++) to[LANES * half + i] = static_cast<bf16>(uint32_t(bits[i]) >> 16);
  }
#endif
}

// 2^x for x <= 127, with a relative error of 4e-6; 0 below 2^-126.
INLINE Floats exp2(Floats exponent) {
  const Floats x = at_least(-126.0f, exponent);
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const Floats shifted = x + 12582912.0f;
  const Floats fraction = x - (shifted - 12582912.0f);
  Floats result = fraction * 0.00966636836528778f + 0.055921975523233414f;
  result = result * fraction + 0.2402234971523285f;
  result = result * fraction + 0.6931210160255432f;
  result = result * fraction + 1.0f;
  result = from_bits(bits_of(result) + (bits_of(shifted) << 23));
  return exponent < -126.0f ? Floats{} : result;
}

// x Phi(x), with Phi(x) - 1/2 as an odd polynomial, fitted to the least maximum error on
// |x| <= 4.5. The absolute error is below 6e-5 there, a fourth of what rounding 0.06 to bf16 costs,
// and 5e-6 |x| beyond.
INLINE Floats gelu(Floats x) {
  constexpr float END = 4.5f;
  const Floats z = at_most(END, at_least(-END, x));
  const Floats u = z * z * (1 / (END * END));
  Floats p = u * -0.9884330034255981f + 5.7184014320373535f;
  p = p * u - 14.754692077636719f;
  p = p * u + 22.608966827392578f;
  p = p * u - 23.201152801513672f;
  p = p * u + 17.106706619262695f;
  p = p * u - 9.488838195800781f;
  p = p * u + 4.05624532699585f;
  p = p * u - 1.345018744468689f;
  p = p * u + 0.39892467856407166f;
  return x * (z * p + 0.5f);
}

}  // namespace native
