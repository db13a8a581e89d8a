// Attention of one head within one text, shared by whole layers (layers.cpp) and attention alone (attention.cpp).

#pragma once

#include "products.h"

namespace {

constexpr int64_t BLOCK = 16 * ROWS; // tokens that share a panel while it is in cache

// Queries, keys and values of one head over one text, each [length, size] with `row` floats from one token to the next.
struct Head {
  const float *query, *key, *value;
  int64_t row, length, size;
  float scale; // factor of the scores before the softmax
};

// Buffers, kept from one call to the next.
struct Scratch {
  std::vector<float> keys, values, scores, factor;
};

// Finish function that stores the sums times a factor of the token, for the first `count` columns of a panel.
struct Scale {
  const float* factor;
  float* out;
  int64_t row, count;
  INLINE void operator()(int token, int part, Floats sum) const {
    store_some(out + token * row + LANES * part, sum * splat(factor[token]), count - LANES * part);
  }
};

// Pack rows [length, size] into panels [panel][dimension][row], as the weights of products with each row; what is
// behind the last row is of no meaning.
inline void pack_rows(const float* from, int64_t row, int64_t length, int64_t size, std::vector<float>& packed) {
  packed.resize(round_up(length, PANEL) * size);
  for (int64_t first = 0; first < length; first += PANEL)
    for (int64_t d = 0; d < size; d++)
      for (int64_t j = 0; j < std::min(PANEL, length - first); j++)
        packed[first * size + d * PANEL + j] = from[(first + j) * row + d];
}

// Pack the columns of rows [length, size] into panels [panel][row][column], as the weights of products with each
// column; what is behind the last column is of no meaning.
inline void pack_columns(const float* from, int64_t row, int64_t length, int64_t size, std::vector<float>& packed) {
  packed.resize(round_up(size, PANEL) * length);
  for (int64_t d = 0; d < size; d += PANEL)
    for (int64_t j = 0; j < length; j++)
      std::memcpy(packed.data() + d * length + j * PANEL, from + j * row + d,
                  std::min(PANEL, size - d) * sizeof(float));
}

constexpr float LOG2_E = 1.44269504f;

// Turn a row of `length` attention scores, to base 2 and with room for `columns`, into softmax weights but for a
// factor, which is returned; log_sum, unless it is null, receives the logarithm to base 2 of the sum of 2^score.
inline float softmax_row(float* scores, int64_t length, int64_t columns, float* log_sum) {
  std::fill(scores + length, scores + columns, -INFINITY);
  Floats largest = splat(-INFINITY), sums{};
  for (int64_t j = 0; j < length; j += LANES) largest = larger(load(scores + j), largest);
  float top = largest_lane(largest);
  for (int64_t j = 0; j < length; j += LANES) {
    Floats weight = power_of_two(load(scores + j) - splat(top));
    store(scores + j, weight);
    sums += weight;
  }
  float sum = sum_lanes(sums);
  if (log_sum) *log_sum = top + std::log2(sum);
  return 1 / sum;
}

// out [length, size], with `row` floats from one token to the next; log_sums [length] or null, see `softmax_row`.
inline void attend(const Head& head, float* out, Scratch& s, float* log_sums = nullptr) {
  int64_t columns = round_up(head.length, PANEL);
  pack_rows(head.key, head.row, head.length, head.size, s.keys);
  pack_columns(head.value, head.row, head.length, head.size, s.values);
  for (int64_t begin = 0; begin < head.length; begin += BLOCK) {
    int64_t rows = std::min(BLOCK, head.length - begin);
    s.scores.resize(rows * columns);
    s.factor.assign(rows, head.scale * LOG2_E);
    for (int64_t first = 0; first < head.length; first += PANEL)
      multiply_all(FloatTokens{head.query + begin * head.row, head.row}, 0, rows, s.keys.data() + first * head.size,
                   head.size, [&](int64_t i) {
        return Scale{s.factor.data() + i, s.scores.data() + i * columns + first, columns, PANEL};
      });
    for (int64_t i = 0; i < rows; i++)
      s.factor[i] = softmax_row(s.scores.data() + i * columns, head.length, columns,
                                log_sums ? log_sums + begin + i : nullptr);
    for (int64_t d = 0; d < head.size; d += PANEL)
      multiply_all(FloatTokens{s.scores.data(), columns}, 0, rows, s.values.data() + d * head.length, head.length,
                   [&](int64_t i) {
        return Scale{s.factor.data() + i, out + (begin + i) * head.row + d, head.row, head.size - d};
      });
  }
}

} // namespace
