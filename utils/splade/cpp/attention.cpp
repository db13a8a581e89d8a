// Attention within each text and its gradient, in float32; described in attention_cpu.py.

#include "attention.h"

namespace {

// Buffers of the gradient, kept from one call to the next.
struct GradientScratch {
  std::vector<float> keys, values, key_columns, query_columns, grad_columns, weights, slopes, dots;
};

// Finish function of scores: the softmax's weights, from the logarithms to base 2 of the rows' sums.
struct Weigh {
  const float* log_sums;
  float scale;
  float* out;
  int64_t row;
  INLINE void operator()(int token, int part, Floats sum) const {
    store(out + token * row + LANES * part, power_of_two(sum * splat(scale) - splat(log_sums[token])));
  }
};

// Finish function of the gradient of the softmax's weights: that of the scores, d s = w (d w - sum of w d w), where the
// sum is the dot product of the row's result and the result's gradient, times the scores' factor.
struct Slope {
  const float *weights, *dots;
  float scale;
  float* out;
  int64_t row;
  INLINE void operator()(int token, int part, Floats sum) const {
    int64_t at = token * row + LANES * part;
    store(out + at, load(weights + at) * (sum - splat(dots[token])) * splat(scale));
  }
};

// Finish function that adds to, or stores if `first`, the first `count` columns of a panel.
struct Add {
  bool first;
  float* out;
  int64_t row, count;
  INLINE void operator()(int token, int part, Floats sum) const {
    float* at = out + token * row + LANES * part;
    int64_t own = count - LANES * part;
    store_some(at, first ? sum : sum + load_some(at, own), own);
  }
};

// Gradients of one head within one text, laid out as query, key and value are, from `out` and log_sums of `attend` and
// the gradient of `out`.
void attend_backward(const Head& head, const float* out, const float* log_sums, const float* grad, float* grad_query,
                     float* grad_key, float* grad_value, GradientScratch& s) {
  int64_t row = head.row, length = head.length, size = head.size, columns = round_up(length, PANEL);
  pack_rows(head.key, row, length, size, s.keys);
  pack_rows(head.value, row, length, size, s.values);
  pack_columns(head.key, row, length, size, s.key_columns);
  for (int64_t begin = 0; begin < length; begin += BLOCK) {
    int64_t rows = std::min(BLOCK, length - begin);
    const float *query = head.query + begin * row, *own_grad = grad + begin * row, *own_out = out + begin * row;
    s.weights.resize(rows * columns);
    s.slopes.resize(rows * columns);
    s.dots.resize(rows);
    for (int64_t i = 0; i < rows; i++) {
      const float *a = own_out + i * row, *b = own_grad + i * row;
      Floats sum{};
      for (int64_t d = 0; d < size; d += LANES)
        sum = multiply_add(load_some(a + d, size - d), load_some(b + d, size - d), sum);
      s.dots[i] = sum_lanes(sum);
    }
    for (int64_t first = 0; first < length; first += PANEL) {
      auto at = [&](std::vector<float>& values, int64_t i) { return values.data() + i * columns + first; };
      multiply_all(FloatTokens{query, row}, 0, rows, s.keys.data() + first * size, size, [&](int64_t i) {
        return Weigh{log_sums + begin + i, head.scale * LOG2_E, at(s.weights, i), columns};
      });
      multiply_all(FloatTokens{own_grad, row}, 0, rows, s.values.data() + first * size, size, [&](int64_t i) {
        return Slope{at(s.weights, i), s.dots.data() + i, head.scale, at(s.slopes, i), columns};
      });
    }
    pack_columns(query, row, rows, size, s.query_columns);
    pack_columns(own_grad, row, rows, size, s.grad_columns);
    for (int64_t d = 0; d < size; d += PANEL) {
      // Queries times columns of keys; then keys, which are columns of the block, times columns of queries.
      multiply_all(FloatTokens{s.slopes.data(), columns}, 0, rows, s.key_columns.data() + d * length, length,
                   [&](int64_t i) { return Add{true, grad_query + (begin + i) * row + d, row, size - d}; });
      multiply_all(FloatTokens{s.slopes.data(), 1, columns}, 0, length, s.query_columns.data() + d * rows, rows,
                   [&](int64_t j) { return Add{begin == 0, grad_key + j * row + d, row, size - d}; });
      multiply_all(FloatTokens{s.weights.data(), 1, columns}, 0, length, s.grad_columns.data() + d * rows, rows,
                   [&](int64_t j) { return Add{begin == 0, grad_value + j * row + d, row, size - d}; });
    }
  }
}

// Call run(buffers, at, log_at, length) for each head of each text: `at` is where it begins in [tokens, heads, size],
// `log_at` in [heads, tokens]; each thread has buffers of its own.
template <class Buffers, class Run>
void for_each_head(const int64_t* offsets, int64_t texts, int64_t heads, int64_t size, int threads, Run run) {
#pragma omp parallel num_threads(threads)
  {
    Buffers buffers;
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t i = 0; i < texts; i++)
      for (int64_t head = 0; head < heads; head++)
        run(buffers, (offsets[i] * heads + head) * size, head * offsets[texts] + offsets[i],
            offsets[i + 1] - offsets[i]);
  }
}

} // namespace

extern "C" {

// Attention within texts, split by offsets [texts + 1]: query, key, value and out are [tokens, heads, size]; log_sums
// [heads, tokens] receives the logarithm to base 2 of each softmax's sum; scale [1]: factor of the scores.
void attention(const float* query, const float* key, const float* value, const int64_t* offsets, int64_t texts,
               int64_t heads, int64_t size, const float* scale, float* out, float* log_sums, int threads) {
  for_each_head<Scratch>(offsets, texts, heads, size, threads,
                         [&](Scratch& scratch, int64_t at, int64_t log_at, int64_t length) {
    Head head{query + at, key + at, value + at, heads * size, length, size, *scale};
    attend(head, out + at, scratch, log_sums + log_at);
  });
}

// The gradients of query, key and value from grad, that of out.
void attention_backward(const float* query, const float* key, const float* value, const int64_t* offsets, int64_t texts,
                        int64_t heads, int64_t size, const float* scale, const float* out, const float* log_sums,
                        const float* grad, float* grad_query, float* grad_key, float* grad_value, int threads) {
  for_each_head<GradientScratch>(offsets, texts, heads, size, threads,
                                 [&](GradientScratch& scratch, int64_t at, int64_t log_at, int64_t length) {
    Head head{query + at, key + at, value + at, heads * size, length, size, *scale};
    attend_backward(head, out + at, log_sums + log_at, grad + at, grad_query + at, grad_key + at, grad_value + at,
                    scratch);
  });
}
}
