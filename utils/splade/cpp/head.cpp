// The SPLADE head; the algorithm is described in head_cpu.py.

#include "products.h"

namespace {

constexpr int64_t GROUP_TOKENS = 256;   // tokens of texts that share a pass over the projection; they fill the L2 cache
constexpr int64_t TASKS_PER_THREAD = 4; // tasks aimed for, each a group and a slice of the vocabulary; balances load
constexpr int64_t MIN_SLICE_PANELS = 8; // fewest panels in a slice of the vocabulary; bounds the overhead of a task

// Finish function that keeps the maximum over tokens of the codes' products.
struct KeepMaximum {
  int32_t* best; // [PANEL]
  INLINE void operator()(int, int part, Ints sum) const {
    int32_t* at = best + LANES * part;
    store(at, larger(sum, load<Ints>(at)));
  }
};

// Finish function that keeps the maximum over tokens and the token it is from, counted on from `first`.
struct KeepWinner {
  int32_t first;
  float* best;     // [PANEL]
  int32_t* winner; // [PANEL]
  INLINE void operator()(int token, int part, Floats sum) const {
    Floats top = load(best + LANES * part);
    Ints larger = ~(sum <= top) & (top == top); // NaN counts as larger than any number
    store(best + LANES * part, larger ? sum : top);
    store(winner + LANES * part, larger ? splat(first + token) : load<Ints>(winner + LANES * part));
  }
};

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
// compensates for the OFFSET of the weights' codes.
void quantize_text(const float* hidden, int64_t size, int64_t stride, Text& text, int8_t* tokens, int32_t* start) {
  text.finite = true;
  text.scale = text.error = text.norm = 0;
  for (int64_t token = text.begin; token < text.end; token++)
    text.scale = std::max(text.scale, token_step(hidden + token * size, size));
  for (int64_t token = text.begin; token < text.end; token++) {
    const float* row = hidden + token * size;
    Floats errors{}, norms{};
    Ints sums{};
    for (int64_t d = 0; d < stride; d += LANES) { // the row is padded with zeros
      Floats values = load_some(row + d, size - d);
      Ints codes = nearest(values * splat(1 / text.scale));
      Floats steps = to_floats(codes), residual = multiply_add(steps, splat(-text.scale), values);
      store_some(tokens + token * stride + d, __builtin_convertvector(codes, LaneBytes), stride - d);
      sums += codes;
      errors = multiply_add(residual, residual, errors);
      norms = multiply_add(steps, steps, norms);
    }
    start[token] = -OFFSET * sum_lanes(sums);
    float error = sum_lanes(errors), norm = sum_lanes(norms);
    text.finite = text.finite && std::isfinite(error); // a non-finite value has a non-finite residual
    text.error = std::max(text.error, std::sqrt(error));
    text.norm = std::max(text.norm, std::sqrt(norm) * text.scale);
  }
}

// Append to `candidates` the terms of a panel whose weight may be above zero: by Cauchy-Schwarz the exact product is at
// most the quantized one + |token's error| |term| + |quantized token| |term's error|.
void screen_panel(const Projection& p, const Text& text, const int8_t* tokens, const int32_t* start, int64_t panel,
                  std::vector<int32_t>& candidates) {
  alignas(64) int32_t best[PANEL];
  std::fill(best, best + PANEL, INT32_MIN);
  multiply_all(CodeTokens{tokens, p.stride, start}, text.begin, text.end, p.packed + panel * p.stride * PANEL, p.stride,
               [&](int64_t) { return KeepMaximum{best}; });
  constexpr float ROUNDING = 1.0001f; // covers the rounding of the float32 sums in the bound
  int64_t first = panel * PANEL, count = std::min(PANEL, p.vocabulary - first);
  for (int64_t j = 0; j < count; j += LANES) {
    auto load_terms = [&](const float* values) { return load_some(values + first + j, count - j); };
    Floats bound = to_floats(load<Ints>(best + j)) * (load_terms(p.scale) * splat(text.scale));
    if (p.bias) bound += load_terms(p.bias);
    bound += load_terms(p.error) * splat(text.norm * ROUNDING) + load_terms(p.norm) * splat(text.error * ROUNDING);
    Ints may_be_active = ~(bound + splat(1e-4f) <= Floats{}); // keeps NaN
    if (!any(may_be_active)) continue;
    for (int64_t lane = 0; lane < std::min(LANES, count - j); lane++)
      if (may_be_active[lane]) candidates.push_back(int32_t(first + j + lane));
  }
}

// Compute the candidates' exact weights in float32 and append those above zero to `active`. `gathered` is scratch.
void append_active(const Projection& p, const Text& text, const float* hidden, const std::vector<int32_t>& candidates,
                   std::vector<float>& gathered, std::vector<ActiveTerm>& active) {
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
    multiply_all(FloatTokens{hidden, p.size}, text.begin, text.end, gathered.data(), p.size,
                 [&](int64_t token) { return KeepWinner{int32_t(token - text.begin), best, winner}; });
    for (int64_t j = 0; j < count; j++) {
      float logit = best[j] + (p.bias ? p.bias[terms[j]] : 0);
      if (!(logit <= 0)) active.push_back({terms[j], winner[j], std::log1p(logit)});
    }
  }
}

} // namespace

extern "C" {

// Rows of weights in a panel, and the unit to which the dimensions of codes are padded.
int64_t panel_rows() { return PANEL; }
int64_t code_unit() { return CODE_UNIT; }

// Quantize weight [vocabulary, size] into packed [panels, stride / CODE_GROUP, PANEL, CODE_GROUP] and, for each row,
// its step, the norm of the rounding error and the row's norm.
void pack_codes(const float* weight, int64_t vocabulary, int64_t size, uint8_t* packed, float* scale, float* error,
                float* norm, int threads) {
  int64_t stride = round_up(size, CODE_UNIT);
#pragma omp parallel for num_threads(threads)
  for (int64_t panel = 0; panel < count_panels(vocabulary); panel++) {
    uint8_t* out = packed + panel * stride * PANEL;
    std::memset(out, OFFSET, stride * PANEL);
    for (int64_t j = 0; j < std::min(PANEL, vocabulary - panel * PANEL); j++) {
      int64_t term = panel * PANEL + j;
      const float* row = weight + term * size;
      float step = weight_step(largest_magnitude(row, size));
      Floats errors{}, norms{};
      for (int64_t d = 0; d < stride; d += LANES) {
        Floats values = load_some(row + d, size - d);
        Ints codes = nearest(values * splat(1 / step));
        Floats residual = multiply_add(to_floats(codes), splat(-step), values);
        alignas(64) uint8_t bytes[LANES];
        store(bytes, __builtin_convertvector(codes + OFFSET, LaneBytes));
        for (int64_t k = 0; k < std::min(LANES, stride - d); k += 4) {
          int64_t within = (d + k) % CODE_GROUP, group = d + k - within;
          std::memcpy(out + group * PANEL + CODE_GROUP * j + within, bytes + k, 4);
        }
        errors = multiply_add(residual, residual, errors);
        norms = multiply_add(values, values, norms);
      }
      scale[term] = step;
      error[term] = std::sqrt(sum_lanes(errors));
      norm[term] = std::sqrt(sum_lanes(norms));
    }
  }
}

// Find the active terms of texts with states hidden [tokens, size], split by offsets [texts + 1]. Writes their number
// into counts [texts]; the result is to be passed to `collect`, which writes out the terms and frees it.
Found* find(const float* hidden, const int64_t* offsets, int64_t texts, const float* weight, const float* bias,
                   const uint8_t* packed, const float* scale, const float* error, const float* norm, int64_t vocabulary,
                   int64_t size, int64_t* counts, int threads) {
  int64_t stride = round_up(size, CODE_UNIT), panels = count_panels(vocabulary);
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
void backward(const float* grad, const float* hidden, const int64_t* offsets, int64_t texts,
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
