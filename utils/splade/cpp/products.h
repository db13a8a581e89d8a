// Products of tokens and packed weights, shared by the SPLADE head, the transformer layers and attention.
//
// Layouts. The rows of a weight matrix (terms in the head, outputs in a linear layer) are packed in panels, a few
// registers wide: in float32 [panel][dimension][row], in bfloat16 [panel][dimension / 2][row][2], in 8 bits
// [panel][dimension / CODE_GROUP][row][CODE_GROUP]. Tokens stay in rows.

#pragma once

#include "simd.h"

#include <utility>
#include <vector>

namespace {

constexpr int PARTS = 2;                 // registers in a panel
constexpr int64_t PANEL = PARTS * LANES; // rows of weights side by side

// Tokens at a time: their sums with a panel take three quarters of the registers.
constexpr int ROWS = REGISTERS * 3 / 4 / PARTS;
#if defined(SUMS_IN_16_BITS)
constexpr int CODE_ROWS = ROWS / 2; // sums in 16 bits beside those in 32
#elif defined(PRODUCTS_OF_PAIRS)
constexpr int CODE_ROWS = ROWS - 2; // as the codes of a pair are put together in a register
#else
constexpr int CODE_ROWS = ROWS;
#endif

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
int64_t count_panels(int64_t rows) { return round_up(rows, PANEL) / PANEL; }

// Rows of float32, of which element (i, d) is at[i * row + d * step].
struct FloatTokens {
  typedef float Weight;
  static constexpr int MOST = ROWS; // rows that `multiply` takes at a time
  const float* at;
  int64_t row, step = 1;
  FloatTokens from(int64_t i) const { return {at + i * row, row, step}; }
};

// Rows of codes, of which element (i, d) is at[i * row + d]; a row's sums begin at start[i], which compensates for the
// weights' OFFSET.
struct CodeTokens {
  typedef uint8_t Weight;
  static constexpr int MOST = CODE_ROWS;
  const int8_t* at;
  int64_t row;
  const int32_t* start;
  CodeTokens from(int64_t i) const { return {at + i * row, row, start + i}; }
};

#if defined(PRODUCTS_IN_BFLOAT16)
// Rows of bfloat16, of which element (i, d) is at[i * row + d]; `step` is 1.
struct BfloatTokens {
  typedef uint16_t Weight;
  static constexpr int MOST = ROWS;
  const uint16_t* at;
  int64_t row, step = 1;
  BfloatTokens from(int64_t i) const { return {at + i * row, row, step}; }
};
#endif

// Multiply M tokens with a panel and call finish(token, part, sums) for each token and each register of the panel's
// rows. `size` is the number of dimensions, for codes padded to CODE_UNIT, for bfloat16 to 2. The unrolled
// I = 0 .. M * PARTS - 1 keep all sums in registers.
template <int M, class Finish, int... I>
KERNEL void multiply(const int8_t* at, int64_t row, const int32_t* start, const uint8_t* panel, int64_t size,
                     Finish finish, std::integer_sequence<int, I...>) {
#if defined(PRODUCTS_OF_PAIRS)
  Ints sum[(M + 1) / 2][PANEL / 2] = {}; // of pairs of tokens and pairs of rows; they begin at 0, as OFFSET is 0
  for (int64_t d = 0; d < size; d += CODE_UNIT)
#pragma GCC unroll 8
    for (int pair = 0; pair < (M + 1) / 2; pair++) {
      Ints tokens = load_pair(at + 2 * pair * row + d, at + std::min(2 * pair + 1, M - 1) * row + d);
#pragma GCC unroll 8
      for (int rows = 0; rows < PANEL / 2; rows++)
        add_products(sum[pair][rows], tokens, load<Ints>(panel + d * PANEL + rows * REGISTER_BYTES));
    }
  (finish(I / PARTS, I % PARTS,
          one_of_pair(sum[I / PARTS / 2][I % PARTS * 2], sum[I / PARTS / 2][I % PARTS * 2 + 1], I / PARTS % 2)),
   ...);
#else
  Ints sum[] = {splat(start[I / PARTS])...};
  auto weights = [&](int64_t d, int part) { return load<Ints>(panel + d * PANEL + part * REGISTER_BYTES); };
  auto token = [&](int64_t d, int i) { return broadcast(at + i * row + d); };
  for (int64_t d = 0; d < size; d += CODE_UNIT) {
#if defined(SUMS_IN_16_BITS)
    Shorts pairs[sizeof...(I)];
    (set_pairs(pairs[I], weights(d, I % PARTS), token(d, I / PARTS)), ...);
#pragma GCC unroll 3
    for (int64_t next = d + 4; next < d + CODE_UNIT; next += 4)
      (add_to_pairs(pairs[I], weights(next, I % PARTS), token(next, I / PARTS)), ...);
    ((sum[I] += add_pairs(pairs[I])), ...);
#else
    (add_dot(sum[I], weights(d, I % PARTS), token(d, I / PARTS)), ...);
#endif
  }
  (finish(I / PARTS, I % PARTS, sum[I]), ...);
#endif
}

template <int M, class Finish, int... I>
KERNEL void multiply(const float* at, int64_t row, int64_t step, const float* panel, int64_t size, Finish finish,
                     std::integer_sequence<int, I...>) {
  Floats sum[] = {splat(I * 0.0f)...};
  for (int64_t d = 0; d < size; d++, at += step)
    ((sum[I] = multiply_add(load(panel + d * PANEL + I % PARTS * LANES), splat(at[I / PARTS * row]), sum[I])), ...);
  (finish(I / PARTS, I % PARTS, sum[I]), ...);
}

#if defined(PRODUCTS_IN_BFLOAT16)
template <int M, class Finish, int... I>
KERNEL void multiply(const uint16_t* at, int64_t row, int64_t, const uint16_t* panel, int64_t size, Finish finish,
                     std::integer_sequence<int, I...>) {
  Floats sum[] = {splat(I * 0.0f)...};
  for (int64_t d = 0; d < size; d += 2)
    (add_dot(sum[I], load<Ints>(panel + d * PANEL + I % PARTS * 2 * LANES), broadcast(at + I / PARTS * row + d)), ...);
  (finish(I / PARTS, I % PARTS, sum[I]), ...);
}
#endif

// Multiply the first `count` tokens, at most M.
template <int M, class Tokens, class Finish>
INLINE void multiply_last(Tokens tokens, int64_t count, const typename Tokens::Weight* panel, int64_t size,
                          Finish finish) {
  if constexpr (M > 0) {
    auto [at, row, step_or_start] = tokens; // a structure would be passed in memory, which takes longer
    if (count == M)
      multiply<M>(at, row, step_or_start, panel, size, finish, std::make_integer_sequence<int, PARTS * M>());
    else
      multiply_last<M - 1>(tokens, count, panel, size, finish);
  }
}

// Multiply the tokens [token, end) with a panel, as many at a time as fit into the registers; finish(token) returns the
// function that `multiply` calls, for a block of tokens that begins at `token`.
template <class Tokens, class Finish>
void multiply_all(Tokens tokens, int64_t token, int64_t end, const typename Tokens::Weight* panel, int64_t size,
                  Finish finish) {
  for (; token < end; token += Tokens::MOST)
    multiply_last<Tokens::MOST>(tokens.from(token), std::min<int64_t>(Tokens::MOST, end - token), panel, size,
                                finish(token));
}

// Put the codes of dimensions [d, d + LANES) of row j into a panel; those from `stride` on are left out.
INLINE void put_codes(Ints codes, uint8_t* panel, int64_t j, int64_t d, int64_t stride) {
  alignas(64) uint8_t bytes[LANES];
  store(bytes, __builtin_convertvector(codes + OFFSET, LaneBytes));
  for (int64_t k = 0; k < std::min(LANES, stride - d); k += 4) {
    int64_t within = (d + k) % CODE_GROUP, group = d + k - within;
    std::memcpy(panel + group * PANEL + CODE_GROUP * j + within, bytes + k, 4);
  }
}

// Largest absolute value.
INLINE float largest_magnitude(const float* values, int64_t count) {
  Floats largest{};
  for (int64_t i = 0; i < count; i += LANES) largest = larger(magnitude(load_some(values + i, count - i)), largest);
  return largest_lane(largest);
}

// Quantization step of weights, which maps the largest absolute value to the largest code.
INLINE float weight_step(float largest) { return largest > 1e-30f ? largest / LARGEST_CODE : 1; }

// Quantization step of a token, with which no code is above 127 and no sum of codes above LANE_LIMIT.
INLINE float token_step(const float* token, int64_t size) {
  float largest = largest_magnitude(token, size), sum = 0;
  if (LANE_LIMIT) {
    Floats most{};
    for (int64_t first = 0; first < size; first += CODE_UNIT) {
      Floats sums{};
      for (int64_t d = first; d < first + CODE_UNIT; d += LANES) sums += magnitude(load_some(token + d, size - d));
      for (int64_t apart : {1, 4, 8})
        if (apart < LANES) sums += lanes_apart(sums, apart);
      most = larger(sums, most);
    }
    sum = largest_lane(most);
  }
  constexpr float ROUNDED_UP = 4.1f; // at most, by eight codes
  float step = std::max(largest / 127, sum / (LANE_LIMIT - ROUNDED_UP));
  return largest > 1e-30f ? step : 1;
}

} // namespace
