// The SPLADE head; the algorithm is described in head_cpu.py.

#include "vnni.h"

namespace {

constexpr int64_t GROUP_TOKENS = 256;   // tokens of texts that share a pass over the projection; they fill the L2 cache
constexpr int64_t TASKS_PER_THREAD = 4; // tasks aimed for, each a group and a slice of the vocabulary; balances load
constexpr int64_t MIN_SLICE_PANELS = 8; // fewest panels in a slice of the vocabulary; bounds the overhead of a task

// Keep the larger of each sum and its best so far, and with it the token it is from.
INLINE void keep_larger(__m512 sum, int32_t token, float* best, int32_t* winner) {
  __m512 top = _mm512_loadu_ps(best);
  __mmask16 larger = _mm512_cmp_ps_mask(sum, top, _CMP_NLE_UQ); // NaN counts as larger
  _mm512_mask_storeu_ps(best, larger, sum);
  _mm512_mask_storeu_epi32(winner, larger, _mm512_set1_epi32(token));
}

// Finish function of multiply_codes that keeps the maximum over tokens.
struct KeepMaximum {
  int32_t* best; // [64]
  INLINE void operator()(int, int quarter, __m512i sum) const {
    int32_t* at = best + 16 * quarter;
    _mm512_storeu_si512(at, _mm512_max_epi32(_mm512_loadu_si512(at), sum));
  }
};

// Update best[term] and winner[term], the largest product and its token, with M tokens from position `first` on, for 64
// terms in float32; `panel` is [dimension][64].
template <int M, int... I>
KERNEL void multiply(const float* tokens, const float* panel, int64_t size, int32_t first, float* best, int32_t* winner,
                     std::integer_sequence<int, I...>) {
  __m512 sum[] = {_mm512_set1_ps(I * 0.0f)...};
  for (int64_t d = 0; d < size; d++) {
    const __m512 terms[] = {_mm512_loadu_ps(panel + d * PANEL), _mm512_loadu_ps(panel + d * PANEL + 16),
                            _mm512_loadu_ps(panel + d * PANEL + 32), _mm512_loadu_ps(panel + d * PANEL + 48)};
    ((sum[I] = _mm512_fmadd_ps(terms[I % 4], _mm512_set1_ps(tokens[I / 4 * size + d]), sum[I])), ...);
  }
  (keep_larger(sum[I], first + I / 4, best + 16 * (I % 4), winner + 16 * (I % 4)), ...);
}

struct Text {
  int64_t begin, end; // tokens
  float scale;        // quantization step
  float error, norm;  // largest norm of the rounding error, and largest norm of the rounded states, among its tokens
  bool finite;
};

struct ActiveTerm {
  int32_t term, winner;
  float weight;
};

// Active terms of each text, in slices of the vocabulary: lists[text * slices + slice].
struct Found {
  int64_t slices;
  std::vector<std::vector<ActiveTerm>> lists;
};

struct Projection {
  const float *weight, *bias; // [vocabulary, size], [vocabulary] or null
  const uint8_t* packed;
  const float *scale, *error, *norm; // [vocabulary]: quantization step, norm of the rounding error, norm
  int64_t vocabulary, size, stride;
};

// Quantize the tokens of a text with one step for all, so that their products compare as integers. start[token]
// compensates for the 128 that is added to every weight code to make it unsigned.
AVX512 void quantize_text(const float* hidden, int64_t size, int64_t stride, Text& text, int8_t* tokens,
                          int32_t* start) {
  float largest = largest_magnitude(hidden + text.begin * size, (text.end - text.begin) * size);
  text.finite = true;
  text.scale = step_size(largest);
  const __m512 inverse_step = _mm512_set1_ps(1 / text.scale);
  text.error = text.norm = 0;
  for (int64_t token = text.begin; token < text.end; token++) {
    const float* row = hidden + token * size;
    __m512 errors = _mm512_setzero_ps(), norms = _mm512_setzero_ps();
    __m512i sums = _mm512_setzero_si512();
    for (int64_t d = 0; d < stride; d += 16) {
      __mmask16 inside = first_lanes(size - d), kept = first_lanes(stride - d); // the row is padded with zeros
      __m512 values = _mm512_maskz_loadu_ps(inside, row + d);
      __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse_step)); // rounds to nearest
      __m512 steps = _mm512_cvtepi32_ps(codes);
      __m512 residual = _mm512_fnmadd_ps(steps, _mm512_set1_ps(text.scale), values);
      _mm512_mask_cvtepi32_storeu_epi8(tokens + token * stride + d, kept, codes);
      sums = _mm512_add_epi32(sums, codes);
      errors = _mm512_fmadd_ps(residual, residual, errors);
      norms = _mm512_fmadd_ps(steps, steps, norms);
    }
    start[token] = -128 * _mm512_reduce_add_epi32(sums);
    float error = _mm512_reduce_add_ps(errors), norm = _mm512_reduce_add_ps(norms);
    text.finite = text.finite && std::isfinite(error); // a non-finite value has a non-finite residual
    text.error = std::max(text.error, std::sqrt(error));
    text.norm = std::max(text.norm, std::sqrt(norm) * text.scale);
  }
}

// Append to `candidates` the terms of a panel whose weight may be above zero: by Cauchy-Schwarz the exact product is at
// most the quantized one + |token's error| |term| + |quantized token| |term's error|.
AVX512 void screen_panel(const Projection& p, const Text& text, const int8_t* tokens, const int32_t* start,
                         int64_t panel, std::vector<int32_t>& candidates) {
  alignas(64) int32_t best[PANEL];
  std::fill(best, best + PANEL, INT32_MIN);
  multiply_all(tokens, start, text.begin, text.end, p.packed + panel * p.stride * PANEL, p.stride,
               [&](int64_t) { return KeepMaximum{best}; });
  constexpr float ROUNDING = 1.0001f; // covers the rounding of the float32 sums in the bound
  int64_t first = panel * PANEL;
  int32_t count = int32_t(std::min(PANEL, p.vocabulary - first));
  for (int32_t j = 0; j < count; j += 16) {
    __mmask16 inside = first_lanes(count - j);
    auto load = [&](const float* values) AVX512 { return _mm512_maskz_loadu_ps(inside, values + first + j); };
    __m512 scale = _mm512_mul_ps(load(p.scale), _mm512_set1_ps(text.scale));
    __m512 bound = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(best + j)), scale);
    if (p.bias) bound = _mm512_add_ps(bound, load(p.bias));
    __m512 margin = _mm512_mul_ps(load(p.norm), _mm512_set1_ps(text.error * ROUNDING));
    margin = _mm512_fmadd_ps(load(p.error), _mm512_set1_ps(text.norm * ROUNDING), margin);
    bound = _mm512_add_ps(bound, _mm512_add_ps(margin, _mm512_set1_ps(1e-4f)));
    __mmask16 may_be_active = _mm512_mask_cmp_ps_mask(inside, bound, _mm512_setzero_ps(), _CMP_NLE_UQ); // keeps NaN
    if (!may_be_active) continue;
    alignas(64) int32_t found[16];
    __m512i ids = _mm512_add_epi32(_mm512_set1_epi32(int32_t(first) + j),
                                   _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_store_si512(found, _mm512_maskz_compress_epi32(may_be_active, ids));
    candidates.insert(candidates.end(), found, found + __builtin_popcount(may_be_active));
  }
}

// Compute the candidates' exact weights in float32 and append those above zero to `active`. `gathered` is scratch.
AVX512 void append_active(const Projection& p, const Text& text, const float* hidden,
                          const std::vector<int32_t>& candidates, std::vector<float>& gathered,
                          std::vector<ActiveTerm>& active) {
  gathered.resize(p.size * PANEL);
  for (size_t begin = 0; begin < candidates.size(); begin += PANEL) {
    int64_t count = std::min<int64_t>(PANEL, candidates.size() - begin);
    const int32_t* terms = candidates.data() + begin;
    for (int64_t j = 0; j < PANEL; j++) {
      const float* row = p.weight + int64_t(terms[std::min(j, count - 1)]) * p.size;
      for (int64_t d = 0; d < p.size; d++) gathered[d * PANEL + j] = row[d];
    }
    alignas(64) float best[PANEL];
    alignas(64) int32_t winner[PANEL] = {};
    std::fill(best, best + PANEL, -INFINITY);
    int64_t token = text.begin;
    for (; token + ROWS <= text.end; token += ROWS)
      multiply<ROWS>(hidden + token * p.size, gathered.data(), p.size, int32_t(token - text.begin), best, winner,
                     std::make_integer_sequence<int, 4 * ROWS>());
    for (; token < text.end; token++)
      multiply<1>(hidden + token * p.size, gathered.data(), p.size, int32_t(token - text.begin), best, winner,
                  std::make_integer_sequence<int, 4 * 1>());
    for (int64_t j = 0; j < count; j++) {
      float logit = best[j] + (p.bias ? p.bias[terms[j]] : 0);
      if (!(logit <= 0)) active.push_back({terms[j], winner[j], std::log1p(logit)});
    }
  }
}

} // namespace

extern "C" {

// 1 on a processor that runs the kernels, else 0.
int supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

// Quantize weight [vocabulary, size] into packed [panels, stride / 4, 64, 4] and, for each row, its step, the norm of
// the rounding error and the row's norm.
AVX512 void pack(const float* weight, int64_t vocabulary, int64_t size, uint8_t* packed, float* scale, float* error,
                 float* norm, int threads) {
  int64_t stride = round_up(size, 4);
#pragma omp parallel for num_threads(threads)
  for (int64_t panel = 0; panel < round_up(vocabulary, PANEL) / PANEL; panel++) {
    uint8_t* out = packed + panel * stride * PANEL;
    std::memset(out, 128, stride * PANEL);
    for (int64_t j = 0; j < std::min(PANEL, vocabulary - panel * PANEL); j++) {
      int64_t term = panel * PANEL + j;
      const float* row = weight + term * size;
      float largest = 0, squared_error = 0, squared_norm = 0;
      for (int64_t d = 0; d < size; d++) largest = std::max(largest, std::fabs(row[d]));
      float step = step_size(largest);
      for (int64_t d = 0; d < size; d++) {
        float rounded = std::nearbyint(row[d] / step), residual = row[d] - rounded * step;
        out[d / 4 * 4 * PANEL + 4 * j + d % 4] = uint8_t(int32_t(rounded) + 128);
        squared_error += residual * residual;
        squared_norm += row[d] * row[d];
      }
      scale[term] = step;
      error[term] = std::sqrt(squared_error);
      norm[term] = std::sqrt(squared_norm);
    }
  }
}

// Find the active terms of texts with states hidden [tokens, size], split by offsets [texts + 1]. Writes their number
// into counts [texts]; the result is to be passed to `collect`, which writes out the terms and frees it.
AVX512 Found* find(const float* hidden, const int64_t* offsets, int64_t texts, const float* weight, const float* bias,
                   const uint8_t* packed, const float* scale, const float* error, const float* norm, int64_t vocabulary,
                   int64_t size, int64_t* counts, int threads) {
  int64_t stride = round_up(size, 4), panels = round_up(vocabulary, PANEL) / PANEL;
  Projection p{weight, bias, packed, scale, error, norm, vocabulary, size, stride};
  std::vector<Text> all(texts);
  std::vector<int64_t> groups{0}; // first text of each group; last, the number of texts
  for (int64_t i = 0; i < texts; i++) {
    all[i] = {offsets[i], offsets[i + 1], 1, 0, 0, true};
    if (i > groups.back() && offsets[i + 1] - offsets[groups.back()] > GROUP_TOKENS) groups.push_back(i);
  }
  groups.push_back(texts);
  int64_t group_count = groups.size() - 1, slices = 1;
  if (threads > 1) // where groups are few, the vocabulary is split too, so that every thread has work
    slices = std::clamp<int64_t>(TASKS_PER_THREAD * threads / group_count, 1,
                                 std::max<int64_t>(1, panels / MIN_SLICE_PANELS));
  std::vector<int8_t> tokens(offsets[texts] * stride);
  std::vector<int32_t> start(offsets[texts]);
  auto* found = new Found{slices, std::vector<std::vector<ActiveTerm>>(texts * slices)};
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < texts; i++) quantize_text(hidden, size, stride, all[i], tokens.data(), start.data());
    std::vector<float> gathered;
    std::vector<std::vector<int32_t>> candidates;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < group_count * slices; task++) {
      int64_t group = task / slices, slice = task % slices, begin = groups[group], end = groups[group + 1];
      int64_t first = panels * slice / slices, last = panels * (slice + 1) / slices;
      candidates.assign(end - begin, {});
      for (int64_t panel = first; panel < last; panel++)
        for (int64_t i = begin; i < end; i++)
          if (all[i].end > all[i].begin && all[i].finite)
            screen_panel(p, all[i], tokens.data(), start.data(), panel, candidates[i - begin]);
      for (int64_t i = begin; i < end; i++) {
        std::vector<ActiveTerm>& active = found->lists[i * slices + slice];
        append_active(p, all[i], hidden, candidates[i - begin], gathered, active);
        // A non-finite state makes all weights of its text NaN, as a NaN state does in the plain formula.
        for (int64_t term = first * PANEL; !all[i].finite && term < std::min(vocabulary, last * PANEL); term++)
          active.push_back({int32_t(term), 0, NAN});
      }
    }
  }
  for (int64_t i = 0; i < texts; i++) {
    counts[i] = 0;
    for (int64_t slice = 0; slice < slices; slice++) counts[i] += found->lists[i * slices + slice].size();
  }
  return found;
}

// Write out and free the result of `find`: ids in ascending order, weights and winning tokens (counted from the text's
// first), those of text i from starts[i] on; the weights also into zeroed dense [texts, vocabulary], unless it is null.
void collect(Found* found, const int64_t* starts, int64_t texts, int64_t vocabulary, int32_t* terms, float* weights,
             int32_t* winners, float* dense, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < texts; i++) {
    int64_t at = starts[i];
    for (int64_t slice = 0; slice < found->slices; slice++)
      for (const ActiveTerm& active : found->lists[i * found->slices + slice]) {
        terms[at] = active.term;
        weights[at] = active.weight;
        winners[at++] = active.winner;
        if (dense) dense[i * vocabulary + active.term] = active.weight;
      }
  }
  delete found;
}

// Add the gradients to zeroed grad_hidden [tokens, size], grad_weight [vocabulary, size] and grad_bias [vocabulary] (or
// null). slopes is scratch space, as long as `terms`. Each element is summed by one thread, so results do not depend on
// the number of threads.
AVX512 void backward(const float* grad, const float* hidden, const int64_t* offsets, int64_t texts,
                     const float* weight, int64_t vocabulary, int64_t size, const int64_t* starts,
                     const int32_t* terms, const float* weights, const int32_t* winners, float* slopes,
                     float* grad_hidden, float* grad_weight, float* grad_bias, int threads) {
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < texts; i++)
      for (int64_t at = starts[i]; at < starts[i + 1]; at++) {
        // d log(1 + x) / dx = 1 / (1 + x) = exp(-log(1 + x))
        float slope = slopes[at] = grad[i * vocabulary + terms[at]] * std::exp(-weights[at]);
        const float* row = weight + int64_t(terms[at]) * size;
        float* out = grad_hidden + (offsets[i] + winners[at]) * size;
        for (int64_t d = 0; d < size; d++) out[d] += slope * row[d];
      }
    int64_t slices = 16 * threads; // of the vocabulary; more than threads, to balance their load
#pragma omp for schedule(dynamic)
    for (int64_t slice = 0; slice < slices; slice++) {
      int32_t low = int32_t(vocabulary * slice / slices), high = int32_t(vocabulary * (slice + 1) / slices);
      for (int64_t i = 0; i < texts; i++) {
        const int32_t* end = terms + starts[i + 1];
        for (const int32_t* term = std::lower_bound(terms + starts[i], end, low); term != end && *term < high; term++) {
          int64_t at = term - terms;
          const float* token = hidden + (offsets[i] + winners[at]) * size;
          float* out = grad_weight + int64_t(*term) * size;
          for (int64_t d = 0; d < size; d++) out[d] += slopes[at] * token[d];
          if (grad_bias) grad_bias[*term] += slopes[at];
        }
      }
    }
  }
}
}
