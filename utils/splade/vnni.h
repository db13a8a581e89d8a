// Int8 matrix products on a processor with AVX-512 VNNI, shared by the SPLADE head (vnni_head.cpp) and the transformer
// layers (vnni_layers.cpp).
//
// Layouts. A weight matrix is quantized to 8 bits and packed in panels of 64 rows (terms in the head, outputs in a
// linear layer): [panel][dimension / 4][row][4], as vpdpbusd reads it. Tokens stay in rows.

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

constexpr int64_t PANEL = 64; // rows of weights side by side: four registers of 16
constexpr int64_t ROWS = 6;   // tokens at a time: with a panel, 24 accumulators in the 32 registers

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Add to each of 16 sums the dot product of a token's four signed codes with four unsigned codes of a row of weights.
INLINE void add_dot(__m512i& sum, __m512i weights, const int8_t* token) {
  int32_t four;
  std::memcpy(&four, token, 4);
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(_mm512_set1_epi32(four)));
}

// Mask of the first `count` lanes of 16.
INLINE __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xffff : count > 0 ? (1 << count) - 1 : 0; }

// Multiply M tokens with a panel and call finish(token, quarter, sums) for each token and each quarter of the panel's
// 64 rows. A token's sums begin at start[token]; `stride` is the padded number of dimensions.
template <int M, class Finish, int... I> // I = 0 .. 4 M - 1, unrolled so that the compiler keeps all sums in registers
KERNEL void multiply_codes(const int8_t* tokens, const int32_t* start, const uint8_t* panel, int64_t stride,
                           Finish finish, std::integer_sequence<int, I...>) {
  __m512i sum[] = {_mm512_set1_epi32(start[I / 4])...};
  for (int64_t d = 0; d < stride; d += 4) {
    const __m512i weights[] = {_mm512_loadu_si512(panel + d * PANEL), _mm512_loadu_si512(panel + d * PANEL + 64),
                               _mm512_loadu_si512(panel + d * PANEL + 128),
                               _mm512_loadu_si512(panel + d * PANEL + 192)};
    (add_dot(sum[I], weights[I % 4], tokens + I / 4 * stride + d), ...);
  }
  (finish(I / 4, I % 4, sum[I]), ...);
}

// Multiply the tokens [token, end) with a panel, as many at a time as fit into the registers; finish(token) returns the
// function that multiply_codes calls, for a block of tokens that begins at `token`.
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

// Largest absolute value.
INLINE float largest_magnitude(const float* values, int64_t count) {
  __m512 largest = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += 16)
    largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(count - i), values + i)));
  return _mm512_reduce_max_ps(largest);
}

// Quantization step that maps the largest absolute value to code 127; 1 where all values are about zero.
INLINE float step_size(float largest) { return largest > 1e-30f ? largest / 127 : 1; }

} // namespace
