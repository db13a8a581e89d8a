// One register of the processor as a vector, by the vector extensions of GCC and Clang, and the few instructions that
// these cannot express. What the compiler is told of the processor (kernels.py) decides the registers and instructions.

#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define INLINE __attribute__((always_inline)) inline
#define KERNEL __attribute__((noinline))

namespace {

#if defined(__AVX512BW__)
#define REGISTER_BYTES 64
constexpr int REGISTERS = 32;
#elif defined(__AVX2__)
#define REGISTER_BYTES 32
constexpr int REGISTERS = 16;
#else
#define REGISTER_BYTES 16
constexpr int REGISTERS = 32;
#endif

constexpr int64_t LANES = REGISTER_BYTES / 4;
typedef float Floats __attribute__((vector_size(REGISTER_BYTES)));
typedef int32_t Ints __attribute__((vector_size(REGISTER_BYTES)));
typedef int8_t LaneBytes __attribute__((vector_size(REGISTER_BYTES / 4))); // a byte for each lane

INLINE Floats splat(float value) { return value - Floats{}; }
INLINE Ints splat(int32_t value) { return value - Ints{}; }

template <class Vector, class Number>
INLINE Vector load(const Number* values) {
  Vector vector;
  std::memcpy(&vector, values, sizeof vector);
  return vector;
}

INLINE Floats load(const float* values) { return load<Floats>(values); }

// The first `count` values; all where there are more, and 0 in the lanes beyond them.
INLINE Floats load_some(const float* values, int64_t count) {
  if (count >= LANES) return load(values);
  Floats vector{};
  if (count > 0) std::memcpy(&vector, values, count * sizeof(float));
  return vector;
}

template <class Vector, class Number>
INLINE void store(Number* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

// Store the first `count` lanes, at most all.
template <class Vector, class Number>
INLINE void store_some(Number* to, Vector vector, int64_t count) {
  if (count >= LANES)
    store(to, vector);
  else if (count > 0)
    std::memcpy(to, &vector, count * sizeof(Number));
}

// The larger of each two lanes; `b` where one is NaN.
template <class Vector>
INLINE Vector larger(Vector a, Vector b) {
  return a > b ? a : b;
}

INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512BW__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

INLINE Floats magnitude(Floats values) { return (Floats)((Ints)values & 0x7fffffff); }
INLINE Ints not_finite(Floats values) { return ((Ints)values & 0x7f800000) == 0x7f800000; } // -1 or 0
INLINE Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }

// All lanes combined by `combine`, halves of the register first.
template <class Vector, class Combine>
INLINE auto reduce(Vector values, Combine combine) {
  if constexpr (sizeof values > 16) {
    typedef decltype(values[0] + values[0]) Number;
    typedef Number Half __attribute__((vector_size(sizeof values / 2)));
    Half halves[2];
    std::memcpy(halves, &values, sizeof values);
    return reduce(combine(halves[0], halves[1]), combine);
  } else {
    return combine(combine(values[0], values[2]), combine(values[1], values[3]));
  }
}

template <class Vector>
INLINE auto sum_lanes(Vector values) {
  return reduce(values, [](auto a, auto b) { return a + b; });
}

INLINE float largest_lane(Floats values) {
  return reduce(values, [](auto a, auto b) { return a > b ? a : b; });
}

// In each lane, the value of the lane whose number differs by the bit `apart`.
INLINE Floats lanes_apart(Floats values, int32_t apart) {
  Floats moved{};
  for (int32_t i = 0; i < LANES; i++) moved[i] = values[i ^ apart];
  return moved;
}

// Whether a comparison holds in any lane.
INLINE bool any(Ints mask) {
  uint64_t words[REGISTER_BYTES / 8], all = 0;
  std::memcpy(words, &mask, sizeof mask);
  for (uint64_t word : words) all |= word;
  return all;
}

// a * b + c, rounded once. Compilers are told not to form it by themselves, so that results do not depend on how.
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512BW__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

// Integers nearest to the values.
INLINE Ints nearest(Floats values) {
#if defined(__AVX512BW__)
  return (Ints)_mm512_cvtps_epi32((__m512)values);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtps_epi32((__m256)values);
#else
  return (Ints)vcvtnq_s32_f32((float32x4_t)values);
#endif
}

// 2^x, for x up to 127, but at least 2^-125: the Taylor series of 2^r to this degree, r being the difference between x
// and the nearest integer.
template <int degree = 6>
INLINE Floats power_of_two(Floats x) {
  constexpr float SERIES[] = {1, 6.93147181e-1f, 2.40226507e-1f, 5.55041087e-2f,
                              9.61812911e-3f, 1.33335581e-3f, 1.54035304e-4f}; // ln(2)^i / i!
  x = larger(splat(-125.0f), x); // keeps NaN
  Ints power = nearest(x);
  Floats rest = x - to_floats(power), sum = splat(SERIES[degree]);
#pragma GCC unroll 8
  for (int i = degree - 1; i >= 0; i--) sum = multiply_add(sum, rest, splat(SERIES[i]));
  return (Floats)((Ints)sum + (power << 23));
}

// Products of codes. Those of weights are from -LARGEST_CODE to LARGEST_CODE, stored with OFFSET added; those of tokens
// from -127 to 127. Codes are padded to a multiple of CODE_UNIT dimensions, of which CODE_GROUP of a row of weights are
// read together.
//
// Without instructions for them, products of codes are added in 16 bits. For these to suffice, weights have 7 bits, and
// the codes of a token's eight dimensions that meet in one sum add up to at most LANE_LIMIT.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int32_t LARGEST_CODE = 127, OFFSET = 128, CODE_UNIT = 4, CODE_GROUP = 4, LANE_LIMIT = 0;
#elif defined(__AVX2__)
#define SUMS_IN_16_BITS
constexpr int32_t LARGEST_CODE = 63, OFFSET = 64, CODE_UNIT = 16, CODE_GROUP = 4;
constexpr int32_t LANE_LIMIT = 32767 / (LARGEST_CODE + OFFSET);
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define PRODUCTS_OF_PAIRS
constexpr int32_t LARGEST_CODE = 127, OFFSET = 0, CODE_UNIT = 8, CODE_GROUP = 8, LANE_LIMIT = 0;
#else
constexpr int32_t LARGEST_CODE = 127, OFFSET = 0, CODE_UNIT = 4, CODE_GROUP = 4, LANE_LIMIT = 0;
#endif

#if defined(PRODUCTS_OF_PAIRS)

// Eight codes of each of two tokens.
INLINE Ints load_pair(const int8_t* first, const int8_t* second) {
  return (Ints)vcombine_s8(vld1_s8(first), vld1_s8(second));
}

// Add to sums the four dot products of two tokens' codes with those of two rows of weights: the first token's with both
// rows, then the second's.
INLINE void add_products(Ints& sums, Ints tokens, Ints weights) {
  sums = (Ints)vmmlaq_s32((int32x4_t)sums, (int8x16_t)tokens, (int8x16_t)weights);
}

// One token's sums with four rows, from the sums of its pair with the first two and the last two.
INLINE Ints one_of_pair(Ints first, Ints last, bool second) {
  return (Ints)(second ? vzip2q_s64((int64x2_t)first, (int64x2_t)last) : vzip1q_s64((int64x2_t)first, (int64x2_t)last));
}

#else

// Four bytes of a token in each lane.
INLINE Ints broadcast(const void* four) {
  int32_t bytes;
  std::memcpy(&bytes, four, 4);
  return splat(bytes);
}

#if defined(SUMS_IN_16_BITS)
typedef int16_t Shorts __attribute__((vector_size(REGISTER_BYTES)));

// Multiply a token's four codes with four codes of a row of weights, and sum up two by two. Volatile, because GCC would
// reorder the products until the registers do not suffice.
INLINE void set_pairs(Shorts& pairs, Ints weights, Ints token) {
  asm volatile("vpmaddubsw %2, %1, %0" : "=v"(pairs) : "v"(weights), "v"(token));
}

INLINE void add_to_pairs(Shorts& pairs, Ints weights, Ints token) {
  Shorts product;
  asm volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+v"(pairs), "=&v"(product) : "v"(weights), "v"(token));
}

INLINE Ints add_pairs(Shorts pairs) {
#if defined(__AVX512BW__)
  return (Ints)_mm512_madd_epi16((__m512i)pairs, _mm512_set1_epi16(1));
#else
  return (Ints)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi16(1));
#endif
}

#else

// Add to each of the sums the dot product of a token's four codes with four codes of a row of weights.
INLINE void add_dot(Ints& sum, Ints weights, Ints token) {
#if defined(__AVX512VNNI__)
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(token));
#elif defined(__AVXVNNI__)
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(weights), "x"(token));
#else
  sum = (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, (int8x16_t)token);
#endif
}
#endif
#endif

#if defined(__AVX512BF16__)
#define PRODUCTS_IN_BFLOAT16
typedef uint16_t LaneBfloats __attribute__((vector_size(REGISTER_BYTES / 2))); // a bfloat16 for each lane

// Values rounded to bfloat16.
INLINE LaneBfloats to_bfloats(Floats values) { return (LaneBfloats)_mm512_cvtneps_pbh((__m512)values); }

// Add to each of the sums the dot product of two bfloat16 of a token with two of a row of weights.
INLINE void add_dot(Floats& sum, Ints weights, Ints token) {
  sum = (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)token);
}
#endif

} // namespace
