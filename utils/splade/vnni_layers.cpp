// Linear layers and whole layers of a transformer in int8; the algorithm is described in int8.py.

#include "vnni.h"

namespace {

constexpr int64_t BLOCK = 16 * ROWS;  // tokens that share a panel while it is in cache
constexpr int64_t GROUP_TOKENS = 192; // most tokens in a pass through a layer, but for a longer text; keeps it in cache

// Weights of a linear layer.
struct Matrix {
  const uint8_t* packed;
  const float *scale, *bias; // [outputs]; bias may be null
  int64_t outputs, size;
};

// Parameters of a layer normalization.
struct Norm {
  const float *weight, *bias;
  float epsilon;
};

// Quantized rows, each with a step of its own.
struct Codes {
  int64_t stride;
  std::vector<int8_t> codes;  // [rows, stride]
  std::vector<int32_t> start; // [rows]: compensates for the 128 that is added to every weight code
  std::vector<float> step;    // [rows]: quantization step, NaN for a row with a non-finite value
  void resize(int64_t rows, int64_t size) {
    stride = round_up(size, 4);
    codes.resize(rows * stride);
    start.resize(rows);
    step.resize(rows);
  }
};

// Mask of the lanes that hold a quiet or signaling NaN or an infinity of either sign.
INLINE __mmask16 not_finite(__m512 values) { return _mm512_fpclass_ps_mask(values, 0x99); }

INLINE __m512 exponential(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(88), _mm512_max_ps(_mm512_set1_ps(-87), x)); // keeps NaN, the second operand
  __m512 power = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693145752f), x); // ln 2 in two parts, for precision
  rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(1.42860677e-6f), rest);
  __m512 sum = _mm512_set1_ps(1.0f / 720); // Taylor series; |rest| is at most ln 2 / 2
  for (float coefficient : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(sum, power);
}

// GELU by its tanh approximation, x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), within 0.0005 of x Phi(x); Phi
// is the standard normal distribution function (Hendrycks and Gimpel, arXiv 1606.08415).
INLINE __m512 gelu(__m512 x) {
  __m512 cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.0713548163f), _mm512_set1_ps(-1.59576912f));
  return _mm512_div_ps(x, _mm512_add_ps(exponential(_mm512_mul_ps(x, cubic)), _mm512_set1_ps(1)));
}

// What is done with a product: store it, add it to the values that are there, or store its GELU.
enum class Epilogue { STORE, ADD, GELU };

// Finish function of multiply_codes: value = token's step * output's step * sum + bias, then the epilogue, for the
// first `count` outputs of the panel. `row` is the number of floats from one row of `out` to the next.
template <Epilogue epilogue>
struct Dequantize {
  const float *token_step, *scale, *bias; // bias may be null
  float* out;
  int64_t row, count;
  INLINE void operator()(int token, int quarter, __m512i sum) const {
    __mmask16 inside = first_lanes(count - 16 * quarter);
    float* at = out + token * row + 16 * quarter;
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(token_step[token]));
    value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(inside, scale + 16 * quarter));
    if (bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(inside, bias + 16 * quarter));
    if (epilogue == Epilogue::ADD) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(inside, at));
    if (epilogue == Epilogue::GELU) value = gelu(value);
    _mm512_mask_storeu_ps(at, inside, value);
  }
};

// Quantize `row` into row i of `out`.
AVX512 void quantize_row(const float* row, int64_t size, int64_t i, Codes& out) {
  float step = step_size(largest_magnitude(row, size));
  __m512i sum = _mm512_setzero_si512();
  __mmask16 non_finite = 0;
  for (int64_t d = 0; d < out.stride; d += 16) {
    __m512 values = _mm512_maskz_loadu_ps(first_lanes(size - d), row + d);
    __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(1 / step)));
    _mm512_mask_cvtepi32_storeu_epi8(out.codes.data() + i * out.stride + d, first_lanes(out.stride - d), codes);
    sum = _mm512_add_epi32(sum, codes);
    non_finite |= not_finite(values);
  }
  out.start[i] = -128 * _mm512_reduce_add_epi32(sum);
  out.step[i] = non_finite ? NAN : step;
}

// Multiply rows [begin, end) of `in` with one panel of `m`, into out [rows, m.outputs].
template <Epilogue epilogue>
AVX512 void multiply_panel(const Codes& in, int64_t begin, int64_t end, const Matrix& m, int64_t panel, float* out) {
  int64_t first = panel * PANEL;
  multiply_all(in.codes.data(), in.start.data(), begin, end, m.packed + first * in.stride, in.stride,
               [&](int64_t token) {
    return Dequantize<epilogue>{in.step.data() + token,          m.scale + first, m.bias ? m.bias + first : nullptr,
                                out + token * m.outputs + first, m.outputs,       m.outputs - first};
  });
}

// Buffers for the attention of one head over one text.
struct Scratch {
  Codes queries, key, high, low;
  std::vector<uint8_t> keys, values;
  std::vector<float> key_step, scores;
};

// Turn a row of attention scores into softmax weights: 14-bit codes, high * 128 + low, and a step for each part.
AVX512 void softmax_row(const float* scores, int64_t length, int64_t i, Codes& high, Codes& low) {
  __m512 largest = _mm512_set1_ps(-INFINITY);
  for (int64_t j = 0; j < length; j += 16)
    largest = _mm512_mask_max_ps(largest, first_lanes(length - j), largest, _mm512_loadu_ps(scores + j));
  __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  __m512i high_sums = _mm512_setzero_si512(), low_sums = _mm512_setzero_si512();
  __mmask16 non_finite = 0;
  for (int64_t j = 0; j < high.stride; j += 16) {
    __mmask16 inside = first_lanes(length - j), kept = first_lanes(high.stride - j);
    __m512 values = _mm512_maskz_loadu_ps(inside, scores + j), weight = exponential(_mm512_sub_ps(values, top));
    non_finite |= not_finite(values);
    __m512i code = _mm512_maskz_cvtps_epi32(inside, _mm512_mul_ps(weight, _mm512_set1_ps(127 * 128)));
    __m512i high_code = _mm512_srai_epi32(code, 7), low_code = _mm512_and_si512(code, _mm512_set1_epi32(127));
    _mm512_mask_cvtepi32_storeu_epi8(high.codes.data() + i * high.stride + j, kept, high_code);
    _mm512_mask_cvtepi32_storeu_epi8(low.codes.data() + i * low.stride + j, kept, low_code);
    high_sums = _mm512_add_epi32(high_sums, high_code);
    low_sums = _mm512_add_epi32(low_sums, low_code);
  }
  int32_t high_sum = _mm512_reduce_add_epi32(high_sums), low_sum = _mm512_reduce_add_epi32(low_sums);
  high.start[i] = -128 * high_sum;
  low.start[i] = -128 * low_sum;
  low.step[i] = non_finite ? NAN : 1 / (128.0f * high_sum + low_sum);
  high.step[i] = 128 * low.step[i];
}

// Attention of one head within one text: query, key, value and out are [length, size] with `row` floats, `out_row` for
// out, from one token to the next. size: a multiple of 16, at most PANEL.
AVX512 void attend(const float* query, const float* key, const float* value, int64_t row, int64_t length, int64_t size,
                   float* out, int64_t out_row, Scratch& s) {
  int64_t panels = round_up(length, PANEL) / PANEL, columns = panels * PANEL, stride = round_up(length, 4);
  s.keys.assign(columns * size, 128);
  s.key_step.assign(columns, 0);
  s.key.resize(1, size);
  for (int64_t j = 0; j < length; j++) {
    quantize_row(key + j * row, size, 0, s.key);
    s.key_step[j] = s.key.step[0];
    uint8_t* at = s.keys.data() + j / PANEL * PANEL * size + j % PANEL * 4;
    for (int64_t d = 0; d < size; d += 4) {
      uint32_t four;
      std::memcpy(&four, s.key.codes.data() + d, 4);
      four ^= 0x80808080; // adds 128 to each, which makes them unsigned
      std::memcpy(at + d * PANEL, &four, 4);
    }
  }
  alignas(64) float value_step[PANEL];
  s.values.resize(stride * PANEL);
  for (int64_t d = 0; d < size; d += 16) {
    __m512 largest = _mm512_setzero_ps();
    __mmask16 non_finite = 0;
    for (int64_t j = 0; j < length; j++) {
      __m512 values = _mm512_loadu_ps(value + j * row + d);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(values));
      non_finite |= not_finite(values);
    }
    __m512 steps = _mm512_max_ps(_mm512_mul_ps(largest, _mm512_set1_ps(1.0f / 127)), _mm512_set1_ps(1e-30f));
    __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1), steps);
    _mm512_store_ps(value_step + d, _mm512_mask_mov_ps(steps, non_finite, _mm512_set1_ps(NAN)));
    for (int64_t j = 0; j < stride; j += 4) {
      __m512i four = _mm512_set1_epi32(int32_t(0x80808080));
      for (int64_t k = 0; k < 4 && j + k < length; k++) {
        __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(value + (j + k) * row + d), inverse));
        codes = _mm512_and_si512(codes, _mm512_set1_epi32(255));
        four = _mm512_xor_si512(four, _mm512_sllv_epi32(codes, _mm512_set1_epi32(int32_t(8 * k))));
      }
      _mm512_storeu_si512(s.values.data() + j * PANEL + d * 4, four);
    }
  }
  for (int64_t begin = 0; begin < length; begin += BLOCK) {
    int64_t rows = std::min(BLOCK, length - begin);
    s.queries.resize(rows, size);
    for (Codes* codes : {&s.high, &s.low}) codes->resize(rows, length);
    s.scores.resize(rows * columns);
    for (int64_t i = 0; i < rows; i++) {
      quantize_row(query + (begin + i) * row, size, i, s.queries);
      s.queries.step[i] /= std::sqrt(float(size));
    }
    Matrix keys{s.keys.data(), s.key_step.data(), nullptr, columns, size};
    for (int64_t panel = 0; panel < panels; panel++)
      multiply_panel<Epilogue::STORE>(s.queries, 0, rows, keys, panel, s.scores.data());
    for (int64_t i = 0; i < rows; i++) softmax_row(s.scores.data() + i * columns, length, i, s.high, s.low);
    auto sum_values = [&](auto finish, const Codes& weights) AVX512 {
      multiply_all(weights.codes.data(), weights.start.data(), 0, rows, s.values.data(), stride, [&](int64_t i) {
        finish.token_step = weights.step.data() + i;
        finish.out = out + (begin + i) * out_row;
        return finish;
      });
    };
    sum_values(Dequantize<Epilogue::STORE>{nullptr, value_step, nullptr, nullptr, out_row, size}, s.high);
    sum_values(Dequantize<Epilogue::ADD>{nullptr, value_step, nullptr, nullptr, out_row, size}, s.low);
  }
}

// states = LayerNorm(states + change)
AVX512 void add_and_normalize(float* states, const float* change, int64_t size, const Norm& norm) {
  __m512 sums = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int64_t d = 0; d < size; d += 16) {
    __mmask16 inside = first_lanes(size - d);
    __m512 value = _mm512_add_ps(_mm512_maskz_loadu_ps(inside, states + d), _mm512_maskz_loadu_ps(inside, change + d));
    _mm512_mask_storeu_ps(states + d, inside, value);
    sums = _mm512_add_ps(sums, value);
  }
  __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / size);
  for (int64_t d = 0; d < size; d += 16) {
    __mmask16 inside = first_lanes(size - d);
    __m512 deviation = _mm512_maskz_sub_ps(inside, _mm512_maskz_loadu_ps(inside, states + d), mean);
    squares = _mm512_fmadd_ps(deviation, deviation, squares);
  }
  __m512 factor = _mm512_set1_ps(1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + norm.epsilon));
  for (int64_t d = 0; d < size; d += 16) {
    __mmask16 inside = first_lanes(size - d);
    __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(inside, states + d), mean), factor);
    value = _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(inside, norm.weight + d),
                            _mm512_maskz_loadu_ps(inside, norm.bias + d));
    _mm512_mask_storeu_ps(states + d, inside, value);
  }
}

} // namespace

extern "C" {

// out [tokens, outputs] = input [tokens, size] times the packed weights, plus bias [outputs] or null; each token is
// quantized with a step of its own.
AVX512 void linear(const float* input, int64_t tokens, int64_t size, const uint8_t* packed, const float* scale,
                   const float* bias, int64_t outputs, float* out, int threads) {
  Matrix m{packed, scale, bias, outputs, size};
  int64_t panels = round_up(outputs, PANEL) / PANEL, blocks = round_up(tokens, BLOCK) / BLOCK;
  Codes codes;
  codes.resize(tokens, size);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for
    for (int64_t i = 0; i < tokens; i++) quantize_row(input + i * size, size, i, codes);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t panel = 0; panel < panels; panel++)
        multiply_panel<Epilogue::STORE>(codes, block * BLOCK, std::min(tokens, (block + 1) * BLOCK), m, panel, out);
  }
}

// Run one transformer layer over states [tokens, size], in place: attention within each text and a feed-forward network
// with GELU, of width `inner`, each followed by a residual sum and a normalization. offsets [texts + 1]. parameters:
// codes, steps and bias of query, key, value, attention output, up and down projection; weight and bias of both
// normalizations. epsilon [2]: of both normalizations.
AVX512 void layer(float* states, const int64_t* offsets, int64_t texts, int64_t size, int64_t heads, int64_t inner,
                  const void* const* parameters, const float* epsilon, int threads) {
  Matrix m[6];
  for (int64_t i = 0; i < 6; i++)
    m[i] = {static_cast<const uint8_t*>(parameters[3 * i]), static_cast<const float*>(parameters[3 * i + 1]),
            static_cast<const float*>(parameters[3 * i + 2]), i == 4 ? inner : size, i == 5 ? inner : size};
  Norm norms[2];
  for (int64_t i = 0; i < 2; i++)
    norms[i] = {static_cast<const float*>(parameters[18 + 2 * i]),
                static_cast<const float*>(parameters[19 + 2 * i]), epsilon[i]};
  int64_t panels = round_up(size, PANEL) / PANEL, inner_panels = round_up(inner, PANEL) / PANEL;
  int64_t head_size = size / heads;
  Codes codes, inner_codes;
  std::vector<float> projected[3], intermediate;
  for (int64_t first = 0, last; first < texts; first = last) {
    last = first + 1;
    while (last < texts && offsets[last + 1] - offsets[first] <= GROUP_TOKENS) last++;
    int64_t tokens = offsets[last] - offsets[first];
    float* group = states + offsets[first] * size;
    codes.resize(tokens, size);
    inner_codes.resize(tokens, inner);
    for (auto& values : projected) values.resize(tokens * size);
    intermediate.resize(tokens * inner);
#pragma omp parallel num_threads(threads)
    {
      Scratch scratch;
#pragma omp for
      for (int64_t i = 0; i < tokens; i++) quantize_row(group + i * size, size, i, codes);
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t part = 0; part < 3; part++)
        for (int64_t panel = 0; panel < panels; panel++)
          multiply_panel<Epilogue::STORE>(codes, 0, tokens, m[part], panel, projected[part].data());
      float* context = intermediate.data(); // [tokens, size]: the feed-forward network does not need it yet
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t text = first; text < last; text++)
        for (int64_t head = 0; head < heads; head++) {
          int64_t at = (offsets[text] - offsets[first]) * size + head * head_size;
          attend(projected[0].data() + at, projected[1].data() + at, projected[2].data() + at, size,
                 offsets[text + 1] - offsets[text], head_size, context + at, size, scratch);
        }
#pragma omp for
      for (int64_t i = 0; i < tokens; i++) quantize_row(context + i * size, size, i, codes);
#pragma omp for schedule(dynamic)
      for (int64_t panel = 0; panel < panels; panel++)
        multiply_panel<Epilogue::STORE>(codes, 0, tokens, m[3], panel, projected[0].data());
#pragma omp for
      for (int64_t i = 0; i < tokens; i++) {
        add_and_normalize(group + i * size, projected[0].data() + i * size, size, norms[0]);
        quantize_row(group + i * size, size, i, codes);
      }
#pragma omp for schedule(dynamic)
      for (int64_t panel = 0; panel < inner_panels; panel++)
        multiply_panel<Epilogue::GELU>(codes, 0, tokens, m[4], panel, intermediate.data());
#pragma omp for
      for (int64_t i = 0; i < tokens; i++) quantize_row(intermediate.data() + i * inner, inner, i, inner_codes);
#pragma omp for schedule(dynamic)
      for (int64_t panel = 0; panel < panels; panel++)
        multiply_panel<Epilogue::STORE>(inner_codes, 0, tokens, m[5], panel, projected[0].data());
#pragma omp for
      for (int64_t i = 0; i < tokens; i++)
        add_and_normalize(group + i * size, projected[0].data() + i * size, size, norms[1]);
    }
  }
}
}
