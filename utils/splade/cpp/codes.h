// Rows of states in 8 bits, and attention of one head with all products in 8 bits.

#pragma once

#include "attention.h"

#include <cfloat>

namespace {

// The input of products, rows [count, size] in float32, in 8 bits, each row with a quantization step of its own.
struct CodeRows {
  const float* rows;
  int64_t size, stride;
  std::vector<int8_t> codes;  // [count, stride]
  std::vector<int32_t> start; // [count]: compensates for the OFFSET of the weights' codes
  std::vector<float> step;    // [count]: NaN for a row with a non-finite value
  const float* steps() const { return step.data(); }
  CodeTokens tokens() const { return {codes.data(), stride, start.data()}; }

  // Make room for rows; `put` then quantizes each.
  void prepare(const float* from, int64_t count, int64_t size_) {
    rows = from, size = size_, stride = round_up(size, CODE_UNIT);
    codes.resize(count * stride);
    start.resize(count);
    step.resize(count);
  }

  void put(int64_t i) { put(i, rows + i * size); }

  void put(int64_t i, const float* row) {
    float scale = token_step(row, size);
    Ints sums{}, broken{};
    for (int64_t d = 0; d < stride; d += LANES) {
      Floats values = load_some(row + d, size - d);
      sums += put_lanes(i, d, values * splat(1 / scale));
      broken |= not_finite(values);
    }
    start[i] = -OFFSET * sum_lanes(sums);
    step[i] = any(broken) ? NAN : scale;
  }

  // Set the codes of dimensions [d, d + LANES) to the integers nearest to `values`, and return these.
  INLINE Ints put_lanes(int64_t i, int64_t d, Floats values) {
    Ints own = nearest(values);
    store_some(codes.data() + i * stride + d, __builtin_convertvector(own, LaneBytes), stride - d);
    return own;
  }
};

// Buffers of `attend`, kept from one call to the next.
struct CodeScratch {
  CodeRows query, high, low; // the two parts of the softmax, see `put_softmax`
  std::vector<uint8_t> keys, values;
  std::vector<float> key_steps, value_steps, scores;
};

// Finish function that stores sums of codes times both steps, or adds them to what is there, for the first `count`
// columns of a panel.
struct Dequantize {
  bool add;
  const float *token_step, *scale;
  float* out;
  int64_t row, count;
  INLINE void operator()(int token, int part, Ints sum) const {
    int64_t own = count - LANES * part;
    float* to = out + token * row + LANES * part;
    Floats value = to_floats(sum) * splat(token_step[token]) * load(scale + LANES * part);
    store_some(to, add ? value + load_some(to, own) : value, own);
  }
};

// As `pack_rows` in float32 does, in codes, with a step for each row, times `factor`.
inline void pack_rows(const float* from, int64_t row, int64_t length, int64_t size, float factor,
                      std::vector<uint8_t>& packed, std::vector<float>& steps) {
  int64_t stride = round_up(size, CODE_UNIT);
  packed.resize(round_up(length, PANEL) * stride);
  steps.resize(round_up(length, PANEL));
  for (int64_t j = 0; j < length; j++) {
    const float* own = from + j * row;
    float step = weight_step(largest_magnitude(own, size));
    Ints broken{};
    for (int64_t d = 0; d < stride; d += LANES) {
      Floats values = load_some(own + d, size - d);
      put_codes(nearest(values * splat(1 / step)), packed.data() + j / PANEL * PANEL * stride, j % PANEL, d, stride);
      broken |= not_finite(values);
    }
    steps[j] = any(broken) ? NAN : step * factor;
  }
}

// As `pack_columns` in float32 does, in codes, with a step for each column.
inline void pack_columns(const float* from, int64_t row, int64_t length, int64_t size, std::vector<uint8_t>& packed,
                         std::vector<float>& steps) {
  int64_t stride = round_up(length, CODE_UNIT);
  packed.resize(round_up(size, PANEL) * stride);
  steps.resize(round_up(size, PANEL));
  for (int64_t d = 0; d < size; d += LANES) {
    Floats largest{};
    Ints broken{};
    for (int64_t j = 0; j < length; j++) {
      Floats values = load_some(from + j * row + d, size - d);
      largest = larger(magnitude(values), largest);
      broken |= not_finite(values);
    }
    Floats step = largest > splat(1e-30f) ? largest / splat(float(LARGEST_CODE)) : splat(1.0f);
    store(steps.data() + d, broken ? splat(NAN) : step);
    Floats factor = splat(1.0f) / step;
    for (int64_t j = 0; j < stride; j += 4) {
      Ints four{}; // codes of four rows in the bytes of a lane
      for (int64_t k = 0; k < std::min<int64_t>(4, length - j); k++) {
        Ints codes = nearest(load_some(from + (j + k) * row + d, size - d) * factor);
        four |= ((codes + OFFSET) & 255) << int(8 * k);
      }
      int64_t within = j % CODE_GROUP;
      uint8_t* to = packed.data() + d / PANEL * PANEL * stride + (j - within) * PANEL + d % PANEL * CODE_GROUP + within;
      for (int64_t lane = 0; lane < LANES; lane++) {
        int32_t bytes = four[lane];
        std::memcpy(to + lane * CODE_GROUP, &bytes, 4);
      }
    }
  }
}

// Set row i of `high` and `low` to codes whose sum, each times its step, is the softmax of a row of `length`
// scores, to base 2 and with room for `columns`. The first alone would lose many small weights beside a large one.
inline void put_softmax(float* scores, int64_t length, int64_t columns, CodeRows& high, CodeRows& low, int64_t i) {
  constexpr float LOG2_127 = 6.98868469f; // 127 is the code of the largest weight
  constexpr float PARTS = 254;            // of a step of `high` in one of `low`, as what `high` leaves is half its step
  std::fill(scores + length, scores + columns, -FLT_MAX); // finite, and no more than any score
  Floats largest = splat(-INFINITY);
  Ints high_sums{}, low_sums{}, broken{};
  for (int64_t d = 0; d < columns; d += LANES) {
    Floats values = load(scores + d);
    largest = larger(values, largest);
    broken |= not_finite(values);
  }
  float top = largest_lane(largest);
  for (int64_t d = 0; d < high.stride; d += LANES) {
    Floats weight = power_of_two<4>(load(scores + d) - splat(top) + splat(LOG2_127)); // at most 127.01
    Ints code = high.put_lanes(i, d, weight);
    high_sums += code;
    low_sums += low.put_lanes(i, d, (weight - to_floats(code)) * splat(PARTS));
  }
  int32_t high_sum = sum_lanes(high_sums), low_sum = sum_lanes(low_sums);
  high.start[i] = -OFFSET * high_sum;
  low.start[i] = -OFFSET * low_sum;
  high.step[i] = any(broken) ? NAN : 1 / (high_sum + low_sum / PARTS);
  low.step[i] = high.step[i] / PARTS;
}

// out [length, size], with `row` floats from one token to the next.
inline void attend(const Head& head, float* out, CodeScratch& s) {
  int64_t columns = round_up(head.length, PANEL);
  pack_rows(head.key, head.row, head.length, head.size, head.scale * LOG2_E, s.keys, s.key_steps);
  pack_columns(head.value, head.row, head.length, head.size, s.values, s.value_steps);
  for (int64_t begin = 0; begin < head.length; begin += BLOCK) {
    int64_t rows = std::min(BLOCK, head.length - begin);
    s.scores.resize(rows * columns);
    s.query.prepare(head.query, rows, head.size);
    s.high.prepare(s.scores.data(), rows, head.length);
    s.low.prepare(s.scores.data(), rows, head.length);
    for (int64_t i = 0; i < rows; i++) s.query.put(i, head.query + (begin + i) * head.row);
    auto multiply = [&](const CodeRows& tokens, bool add, const uint8_t* panel, const float* scale, float* to,
                        int64_t row, int64_t count) {
      multiply_all(tokens.tokens(), 0, rows, panel, tokens.stride, [&](int64_t i) {
        return Dequantize{add, tokens.steps() + i, scale, to + i * row, row, count};
      });
    };
    for (int64_t first = 0; first < head.length; first += PANEL)
      multiply(s.query, false, s.keys.data() + first * s.query.stride, s.key_steps.data() + first,
               s.scores.data() + first, columns, PANEL);
    for (int64_t i = 0; i < rows; i++)
      put_softmax(s.scores.data() + i * columns, head.length, columns, s.high, s.low, i);
    for (int64_t d = 0; d < head.size; d += PANEL)
      for (const CodeRows* part : {&s.high, &s.low})
        multiply(*part, part == &s.low, s.values.data() + d * part->stride, s.value_steps.data() + d,
                 out + begin * head.row + d, head.row, head.size - d);
  }
}

} // namespace
