// Products of 8-bit codes on a processor with AVX-512 VNNI, and what codes are made of: the part that the SPLADE head
// (vnni_head.cpp) and the transformer (vnni_layers.cpp) share.
//
// Layouts. A matrix of weights is quantized to 8 bits and packed in panels of 64 terms: [panel][dimension / 4][term][4], as
// vpdpbusd reads it. Tokens stay in rows.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE AVX512 __attribute__((always_inline)) inline
#define KERNEL AVX512 __attribute__((noinline))

namespace {

constexpr int64_t PANEL = 64; // terms side by side: four registers of 16
constexpr int64_t ROWS = 6;   // tokens at a time: 24 accumulators of the 32 registers

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// sum += the dot products of four signed bytes with each of 16 groups of four unsigned ones.
INLINE void add_dot(__m512i& sum, __m512i terms, const int8_t* four) {
  int32_t token;
  std::memcpy(&token, four, 4);
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(terms), "v"(_mm512_set1_epi32(token)));
}

INLINE __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xffff : count > 0 ? (1 << count) - 1 : 0; }

// finish(token, quarter, sums) for M tokens and each quarter of a panel's 64 terms: the products of their codes.
template <int M, class Finish, int... I> // I: 0 .. 4 M - 1, spelled out so that the compiler keeps all sums in registers
KERNEL void multiply_codes(const int8_t* tokens, const int32_t* start, const uint8_t* panel, int64_t stride, Finish finish,
                           std::integer_sequence<int, I...>) {
  __m512i sum[] = {_mm512_set1_epi32(start[I / 4])...};
  for (int64_t d = 0; d < stride; d += 4) {
    const __m512i terms[] = {_mm512_loadu_si512(panel + d * PANEL), _mm512_loadu_si512(panel + d * PANEL + 64),
                             _mm512_loadu_si512(panel + d * PANEL + 128), _mm512_loadu_si512(panel + d * PANEL + 192)};
    (add_dot(sum[I], terms[I % 4], tokens + I / 4 * stride + d), ...);
  }
  (finish(I / 4, I % 4, sum[I]), ...);
}

// All tokens from `token` to `end`, as many at a time as fit the registers; `finish` makes what ends their products.
template <class Finish>
AVX512 void multiply_all(const int8_t* tokens, const int32_t* start, int64_t token, int64_t end, const uint8_t* panel,
                         int64_t stride, Finish finish) {
  auto next = [&](auto count) AVX512 {
    multiply_codes<count()>(tokens + token * stride, start + token, panel, stride, finish(token),
                            std::make_integer_sequence<int, 4 * count()>());
    token += count();
  };
  while (token + ROWS <= end) next(std::integral_constant<int, ROWS>());
  switch (end - token) {
    case 1: next(std::integral_constant<int, 1>()); break;
    case 2: next(std::integral_constant<int, 2>()); break;
    case 3: next(std::integral_constant<int, 3>()); break;
    case 4: next(std::integral_constant<int, 4>()); break;
    case 5: next(std::integral_constant<int, 5>()); break;
  }
}

// The largest absolute value, and the step that makes of it a code of 127.
INLINE float largest_of(const float* values, int64_t count) {
  __m512 tops = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += 16)
    tops = _mm512_max_ps(tops, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(count - i), values + i)));
  return _mm512_reduce_max_ps(tops);
}

INLINE float step_of(float largest) { return largest > 1e-30f ? largest / 127 : 1; }

} // namespace
