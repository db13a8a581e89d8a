// Linear layers and whole layers of a transformer, in float32, bfloat16 and 8 bits; described in layers_cpu.py.

#include "codes.h"

namespace {

constexpr int64_t GROUP_TOKENS = 192; // most tokens in a pass through a layer, but for a longer text; keeps it in cache

// Precisions of products, as kernels.py numbers them.
constexpr int64_t BFLOAT16 = 1, INT8 = 2;

// Weights of a linear layer; `scale` in 8 bits alone.
struct Matrix {
  const void* packed;
  const float *scale, *bias; // [outputs]; bias may be null
  int64_t outputs, size;
};

// Parameters of a layer normalization.
struct Norm {
  const float *weight, *bias;
  float epsilon;
};

// The input of products, rows [count, size] in float32.
struct FloatRows {
  const float* rows;
  int64_t stride;
  const float* steps() const { return nullptr; }
  FloatTokens tokens() const { return {rows, stride}; }
  void prepare(const float* from, int64_t, int64_t size) { rows = from, stride = size; }
  void put(int64_t) {}
};

#if defined(PRODUCTS_IN_BFLOAT16)
// The same in bfloat16.
struct BfloatRows {
  const float* rows;
  int64_t size, stride;
  std::vector<uint16_t> rounded; // [count, stride]
  const float* steps() const { return nullptr; }
  BfloatTokens tokens() const { return {rounded.data(), stride}; }

  void prepare(const float* from, int64_t count, int64_t size_) {
    rows = from, size = size_, stride = round_up(size, 2);
    rounded.resize(count * stride);
  }

  void put(int64_t i) {
    for (int64_t d = 0; d < stride; d += LANES)
      store_some(rounded.data() + i * stride + d, to_bfloats(load_some(rows + i * size + d, size - d)), stride - d);
  }
};
#endif

// GELU, x Phi(x) with the standard normal distribution function Phi (Hendrycks and Gimpel, arXiv 1606.08415), which is
// within 1.3e-7: the logarithm to base 2 of 1 - Phi(|x|) is a polynomial, fitted for |x| up to 6 and constant beyond.
INLINE Floats gelu(Floats x) {
  Floats at = larger(-magnitude(x), splat(-6.0f)), logarithm = splat(-5.18479828e-6f);
  for (float coefficient :
       {-2.27215405e-5f, 5.33667335e-4f, 7.58312410e-3f, 0.0528558306f, -0.459089726f, 1.15111947f, -0.999999702f})
    logarithm = multiply_add(logarithm, at, splat(coefficient));
  Floats tail = power_of_two(logarithm);
  return x * (x < Floats{} ? tail : splat(1.0f) - tail);
}

enum class Epilogue { STORE, GELU };

// Finish function of products: value = sum + bias, with codes sum * token's step * output's step + bias, then the
// epilogue, for the first `count` outputs of a panel. `row` is the number of floats from one row of `out` to the next.
template <Epilogue epilogue>
struct Finish {
  const float *token_step, *scale, *bias; // bias may be null
  float* out;
  int64_t row, count;
  INLINE Floats value(int, int64_t, Floats sum) const { return sum; }
  INLINE Floats value(int token, int64_t at, Ints sum) const {
    return to_floats(sum) * splat(token_step[token]) * load_some(scale + at, count - at);
  }
  template <class Sum>
  INLINE void operator()(int token, int part, Sum sum) const {
    int64_t at = LANES * part;
    Floats result = value(token, at, sum);
    if (bias) result += load_some(bias + at, count - at);
    if (epilogue == Epilogue::GELU) result = gelu(result);
    store_some(out + token * row + at, result, count - at);
  }
};

// Multiply rows [begin, end) of `in` with one panel of `m`, into out [rows, m.outputs].
template <Epilogue epilogue, class Rows>
void multiply_panel(const Rows& in, int64_t begin, int64_t end, const Matrix& m, int64_t panel, float* out) {
  int64_t first = panel * PANEL;
  auto tokens = in.tokens();
  auto weights = static_cast<const typename decltype(tokens)::Weight*>(m.packed) + first * in.stride;
  multiply_all(tokens, begin, end, weights, in.stride, [&](int64_t token) {
    return Finish<epilogue>{in.steps() + token, m.scale + first, m.bias ? m.bias + first : nullptr,
                            out + token * m.outputs + first, m.outputs, m.outputs - first};
  });
}

// states = LayerNorm(states + change)
void add_and_normalize(float* states, const float* change, int64_t size, const Norm& norm) {
  Floats sums{}, squares{};
  for (int64_t d = 0; d < size; d += LANES) {
    Floats value = load_some(states + d, size - d) + load_some(change + d, size - d);
    store_some(states + d, value, size - d);
    sums += value;
  }
  float mean = sum_lanes(sums) / size;
  int64_t whole = size / LANES * LANES;
  for (int64_t d = 0; d < whole; d += LANES) {
    Floats deviation = load(states + d) - splat(mean);
    squares = multiply_add(deviation, deviation, squares);
  }
  float square = sum_lanes(squares);
  for (int64_t d = whole; d < size; d++) square += (states[d] - mean) * (states[d] - mean);
  Floats factor = splat(1 / std::sqrt(square / size + norm.epsilon));
  for (int64_t d = 0; d < size; d += LANES) {
    Floats value = (load_some(states + d, size - d) - splat(mean)) * factor;
    value = multiply_add(value, load_some(norm.weight + d, size - d), load_some(norm.bias + d, size - d));
    store_some(states + d, value, size - d);
  }
}

// See `linear`.
template <class Rows>
void run_linear(const float* input, int64_t tokens, const Matrix& m, float* out, int threads) {
  int64_t panels = count_panels(m.outputs), blocks = round_up(tokens, BLOCK) / BLOCK;
  Rows rows;
  rows.prepare(input, tokens, m.size);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) rows.put(i);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t panel = 0; panel < panels; panel++)
        multiply_panel<Epilogue::STORE>(rows, block * BLOCK, std::min(tokens, (block + 1) * BLOCK), m, panel, out);
  }
}

// Buffers of `run_group`, kept from one call to the next.
template <class Rows>
struct Buffers {
  Rows input, context_input, inner_input;
  std::vector<float> projected[3], intermediate;
};

// Run a layer over texts whose states begin at `group`; see `layer`.
template <class Rows>
void run_group(float* group, const int64_t* offsets, int64_t texts, int64_t size, int64_t heads, int64_t inner,
               const Matrix* m, const Norm* norms, int threads, Buffers<Rows>& buffers) {
  int64_t panels = count_panels(size), inner_panels = count_panels(inner), head_size = size / heads;
  int64_t tokens = offsets[texts] - offsets[0];
  auto& [input, context_input, inner_input, projected, intermediate] = buffers;
  intermediate.resize(tokens * std::max(inner, size));
  for (auto& values : projected) values.resize(tokens * size);
  float* context = intermediate.data(); // [tokens, size]: the feed-forward network does not need it yet
  input.prepare(group, tokens, size);
  context_input.prepare(context, tokens, size);
  inner_input.prepare(intermediate.data(), tokens, inner);
#pragma omp parallel num_threads(threads)
  {
    // Attention is on codes beside any rounded products, but where codes are no faster than float32.
    std::conditional_t<!std::is_same_v<Rows, FloatRows> && !LANE_LIMIT, CodeScratch, Scratch> scratch;
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) input.put(i);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t part = 0; part < 3; part++)
      for (int64_t panel = 0; panel < panels; panel++)
        multiply_panel<Epilogue::STORE>(input, 0, tokens, m[part], panel, projected[part].data());
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t text = 0; text < texts; text++)
      for (int64_t head = 0; head < heads; head++) {
        int64_t at = (offsets[text] - offsets[0]) * size + head * head_size;
        attend(Head{projected[0].data() + at, projected[1].data() + at, projected[2].data() + at, size,
                    offsets[text + 1] - offsets[text], head_size, 1 / std::sqrt(float(head_size))},
               context + at, scratch);
      }
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) context_input.put(i);
#pragma omp for schedule(dynamic)
    for (int64_t panel = 0; panel < panels; panel++)
      multiply_panel<Epilogue::STORE>(context_input, 0, tokens, m[3], panel, projected[0].data());
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) {
      add_and_normalize(group + i * size, projected[0].data() + i * size, size, norms[0]);
      input.put(i);
    }
#pragma omp for schedule(dynamic)
    for (int64_t panel = 0; panel < inner_panels; panel++)
      multiply_panel<Epilogue::GELU>(input, 0, tokens, m[4], panel, intermediate.data());
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) inner_input.put(i);
#pragma omp for schedule(dynamic)
    for (int64_t panel = 0; panel < panels; panel++)
      multiply_panel<Epilogue::STORE>(inner_input, 0, tokens, m[5], panel, projected[0].data());
#pragma omp for
    for (int64_t i = 0; i < tokens; i++)
      add_and_normalize(group + i * size, projected[0].data() + i * size, size, norms[1]);
  }
}

// See `layer`.
template <class Rows>
void run_layer(float* states, const int64_t* offsets, int64_t texts, int64_t size, int64_t heads, int64_t inner,
               const Matrix* m, const Norm* norms, int threads) {
  std::vector<int64_t> groups{0}; // first text of each group; last, the number of texts
  for (int64_t i = 1; i <= texts; i++)
    if (i == texts || offsets[i + 1] - offsets[groups.back()] > GROUP_TOKENS) groups.push_back(i);
  int64_t count = groups.size() - 1;
  auto run = [&](int64_t i, int own_threads, Buffers<Rows>& buffers) {
    const int64_t* own = offsets + groups[i];
    run_group(states + own[0] * size, own, groups[i + 1] - groups[i], size, heads, inner, m, norms, own_threads,
              buffers);
  };
  // Threads that share a group wait for each other after each product, those with groups of their own for the largest.
  int64_t apart = count / threads * threads, largest = 0;
  for (int64_t i = 0; i < apart; i++) largest = std::max(largest, offsets[groups[i + 1]] - offsets[groups[i]]);
  if (4 * largest * threads > 5 * (offsets[groups[apart]] - offsets[0])) apart = 0;
#pragma omp parallel num_threads(threads) if (apart)
  {
    Buffers<Rows> buffers;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < apart; i++) run(i, 1, buffers);
  }
  Buffers<Rows> buffers;
  for (int64_t i = apart; i < count; i++) run(i, threads, buffers);
}

} // namespace

extern "C" {

// Copy weight [outputs, size] into packed [panels, size, PANEL], padded with zeros.
void pack_floats(const float* weight, int64_t outputs, int64_t size, float* packed, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t panel = 0; panel < count_panels(outputs); panel++)
    for (int64_t j = 0; j < PANEL; j++)
      for (int64_t d = 0; d < size; d++) {
        int64_t row = panel * PANEL + j;
        packed[(panel * size + d) * PANEL + j] = row < outputs ? weight[row * size + d] : 0;
      }
}

// Whether products in bfloat16 are compiled.
int64_t has_bfloat16() {
#if defined(PRODUCTS_IN_BFLOAT16)
  return 1;
#else
  return 0;
#endif
}

#if defined(PRODUCTS_IN_BFLOAT16)
// Round weight [outputs, size] to bfloat16 into packed [panels, size / 2, PANEL, 2], padded with zeros.
void pack_bfloats(const float* weight, int64_t outputs, int64_t size, uint16_t* packed, int threads) {
  int64_t stride = round_up(size, 2);
#pragma omp parallel for num_threads(threads)
  for (int64_t panel = 0; panel < count_panels(outputs); panel++) {
    uint16_t* out = packed + panel * stride * PANEL;
    std::memset(out, 0, stride * PANEL * sizeof *out);
    for (int64_t j = 0; j < std::min(PANEL, outputs - panel * PANEL); j++)
      for (int64_t d = 0; d < stride; d += LANES) {
        LaneBfloats values = to_bfloats(load_some(weight + (panel * PANEL + j) * size + d, size - d));
        for (int64_t k = 0; k < std::min(LANES, stride - d); k++)
          out[(d + k) / 2 * 2 * PANEL + 2 * j + k % 2] = values[k];
      }
  }
}
#endif

// out [tokens, outputs] = input [tokens, size] times the packed weights, plus bias [outputs] or null. In 8 bits, with
// scale [outputs], each token has a step of its own.
void linear(const float* input, int64_t tokens, int64_t size, const void* packed, const float* scale, const float* bias,
            int64_t outputs, float* out, int64_t precision, int threads) {
  auto run = precision == INT8 ? run_linear<CodeRows> : run_linear<FloatRows>;
#if defined(PRODUCTS_IN_BFLOAT16)
  if (precision == BFLOAT16) run = run_linear<BfloatRows>;
#endif
  run(input, tokens, Matrix{packed, scale, bias, outputs, size}, out, threads);
}

// Run one transformer layer over states [tokens, size], in place: attention within each text and a feed-forward network
// with GELU, of width `inner`, each followed by a residual sum and a normalization. offsets [texts + 1]. parameters:
// packed weights, steps (of codes, else null) and bias of query, key, value, attention output, up and down
// projection; weight and bias of both normalizations. epsilon [2]: of both normalizations.
void layer(float* states, const int64_t* offsets, int64_t texts, int64_t size, int64_t heads, int64_t inner,
           const void* const* parameters, const float* epsilon, int64_t precision, int threads) {
  Matrix m[6];
  for (int64_t i = 0; i < 6; i++)
    m[i] = {parameters[3 * i], static_cast<const float*>(parameters[3 * i + 1]),
            static_cast<const float*>(parameters[3 * i + 2]), i == 4 ? inner : size, i == 5 ? inner : size};
  Norm norms[2];
  for (int64_t i = 0; i < 2; i++)
    norms[i] = {static_cast<const float*>(parameters[18 + 2 * i]),
                static_cast<const float*>(parameters[19 + 2 * i]), epsilon[i]};
  auto run = precision == INT8 ? run_layer<CodeRows> : run_layer<FloatRows>;
#if defined(PRODUCTS_IN_BFLOAT16)
  if (precision == BFLOAT16) run = run_layer<BfloatRows>;
#endif
  run(states, offsets, texts, size, heads, inner, m, norms, threads);
}
}
