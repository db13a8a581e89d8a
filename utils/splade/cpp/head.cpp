// The SPLADE head; the algorithm is described in head_cpu.py.

#include "products.h"

namespace {

constexpr int64_t GROUP_TOKENS = 256;   // tokens of texts that share a pass over the projection; they fill the L2 cache
constexpr int64_t TASKS_PER_THREAD = 4; // tasks aimed for, each a group and a slice of the vocabulary; balances load
constexpr int64_t MIN_SLICE_PANELS = 8; // fewest panels in a slice of the vocabulary; bounds the overhead of a task
constexpr int64_t CACHE_LINE = 64;      // bytes; of no consequence for results where it is another number

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

// How a text's tokens were rounded to codes.
struct Rounding {
  float scale;       // quantization step
  float error, norm; // largest norm of the rounding error, and largest norm of the rounded rows, among its tokens
  bool finite;
};

struct Text {
  int64_t begin, end; // tokens
  Rounding all, first; // of all dimensions, and of the first directions
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

// A panel of terms in 8 bits.
struct Terms {
  const uint8_t* codes;
  const float *scale, *error, *norm, *bias; // quantization step, norm of the rounding error, norm; bias may be null
};

// Terms in 8 bits, in panels.
struct Codes {
  Terms terms; // of the vocabulary
  int64_t stride;
  Terms panel(int64_t first) const {
    return {terms.codes + first * stride, terms.scale + first, terms.error + first, terms.norm + first,
            terms.bias ? terms.bias + first : nullptr};
  }
};

struct Projection {
  const float *weight, *bias; // [vocabulary, size], [vocabulary] or null
  int64_t vocabulary, size;
  Codes all; // of all dimensions
};

// Another basis of the states and of the terms, in which products are the same but for the states' mean. Codes are of
// the first directions and of the norm of what is in the others.
struct Directions {
  Codes codes;
  const uint8_t* rows;           // [vocabulary, stride of all dimensions] codes of terms, not in panels
  const float *rotation, *shift; // packed [size, size]; [size], what is added to rotated states
  int64_t count;                 // of directions, with the norm
};

// Tokens of all texts in 8 bits; start[token] compensates for the OFFSET of the terms' codes.
struct Tokens {
  int64_t stride;
  std::vector<int8_t> codes;
  std::vector<int32_t> start;
  Tokens(int64_t count, int64_t size) : stride(round_up(size, CODE_UNIT)), codes(count * stride), start(count) {}
  CodeTokens view() const { return {codes.data(), stride, start.data()}; }
};

// Quantize the rows of a text with one step for all, so that their products compare as integers; `row` is the number of
// floats from one of the text's rows to the next.
Rounding quantize_text(const float* rows, int64_t row, int64_t size, const Text& text, Tokens& to) {
  Rounding rounding{0, 0, 0, true};
  for (int64_t i = 0; i < text.end - text.begin; i++)
    rounding.scale = std::max(rounding.scale, token_step(rows + i * row, size));
  for (int64_t i = 0; i < text.end - text.begin; i++) {
    int64_t token = text.begin + i;
    Floats errors{}, norms{};
    Ints sums{};
    for (int64_t d = 0; d < to.stride; d += LANES) { // the row is padded with zeros
      Floats values = load_some(rows + i * row + d, size - d);
      Ints codes = nearest(values * splat(1 / rounding.scale));
      Floats steps = to_floats(codes), residual = multiply_add(steps, splat(-rounding.scale), values);
      store_some(to.codes.data() + token * to.stride + d, __builtin_convertvector(codes, LaneBytes), to.stride - d);
      sums += codes;
      errors = multiply_add(residual, residual, errors);
      norms = multiply_add(steps, steps, norms);
    }
    to.start[token] = -OFFSET * sum_lanes(sums);
    float error = sum_lanes(errors), norm = sum_lanes(norms);
    rounding.finite = rounding.finite && std::isfinite(error); // a non-finite value has a non-finite residual
    rounding.error = std::max(rounding.error, std::sqrt(error));
    rounding.norm = std::max(rounding.norm, std::sqrt(norm) * rounding.scale);
  }
  return rounding;
}

// Finish function that stores the sums plus a shift.
struct Shift {
  const float* shift;
  float* out;
  int64_t row, count;
  INLINE void operator()(int token, int part, Floats sum) const {
    int64_t at = LANES * part;
    store_some(out + token * row + at, sum + load_some(shift + at, count - at), count - at);
  }
};

// Quantize the tokens of a text in the first directions. `rotated` is scratch.
Rounding quantize_first(const float* hidden, int64_t size, const Directions& d, const Text& text, Tokens& to,
                        std::vector<float>& rotated) {
  rotated.resize((text.end - text.begin) * size);
  const float* rows = hidden + text.begin * size;
  for (int64_t at = 0; at < size; at += PANEL)
    multiply_all(FloatTokens{rows, size}, 0, text.end - text.begin, d.rotation + at * size, size, [&](int64_t token) {
      return Shift{d.shift + at, rotated.data() + token * size + at, size, size - at};
    });
  for (int64_t i = 0; i < text.end - text.begin; i++) {
    float *row = rotated.data() + i * size, rest = 0;
    for (int64_t k = d.count - 1; k < size; k++) rest += row[k] * row[k];
    row[d.count - 1] = std::sqrt(rest);
  }
  Rounding first = quantize_text(rotated.data(), size, d.count, text, to);
  constexpr float ROTATION = 1e-5f; // covers what float32 rounds in the rotations, as a share of the products' norms
  first.error += ROTATION * first.norm;
  return first;
}

// Call found(lane) for each of the first `count` terms of a panel whose weight may be above zero: by Cauchy-Schwarz the
// exact product is at most the quantized one + |token's error| |term| + |quantized token| |term's error|.
template <class Callback>
void screen_panel(const Terms& terms, int64_t count, const Text& text, const Rounding& rounding, CodeTokens tokens,
                  Callback found) {
  alignas(64) int32_t best[PANEL];
  std::fill(best, best + PANEL, INT32_MIN);
  multiply_all(tokens, text.begin, text.end, terms.codes, tokens.row, [&](int64_t) { return KeepMaximum{best}; });
  constexpr float ROUNDING = 1.0001f; // covers the rounding of the float32 sums in the bound
  for (int64_t j = 0; j < std::min(PANEL, count); j += LANES) {
    auto load_terms = [&](const float* values) { return load_some(values + j, count - j); };
    Floats bound = to_floats(load<Ints>(best + j)) * (load_terms(terms.scale) * splat(rounding.scale));
    if (terms.bias) bound += load_terms(terms.bias);
    bound += load_terms(terms.error) * splat(rounding.norm * ROUNDING);
    bound += load_terms(terms.norm) * splat(rounding.error * ROUNDING);
    Ints may_be_active = ~(bound + splat(1e-4f) <= Floats{}); // keeps NaN
    if (!any(may_be_active)) continue;
    for (int64_t lane = 0; lane < std::min(LANES, count - j); lane++)
      if (may_be_active[lane]) found(j + lane);
  }
}

// Fetch into the cache the rows, `bytes` each, of the `count` terms at most from `begin` on: they lie anywhere in
// memory, and come while the rows of the terms before them are worked on.
INLINE void fetch_rows(const void* rows, int64_t bytes, const std::vector<int32_t>& terms, size_t begin, size_t count) {
  for (size_t i = begin; i < std::min(begin + count, terms.size()); i++)
    for (int64_t at = 0; at < bytes; at += CACHE_LINE)
      __builtin_prefetch(static_cast<const char*>(rows) + terms[i] * bytes + at);
}

// Append to `candidates` those of `survivors` of the first directions whose weight may be above zero by all dimensions.
void screen_survivors(const Projection& p, const Directions& directions, const Text& text, CodeTokens tokens,
                      const std::vector<int32_t>& survivors, std::vector<uint8_t>& gathered,
                      std::vector<int32_t>& candidates) {
  int64_t stride = p.all.stride;
  gathered.resize(stride * PANEL);
  for (size_t begin = 0; begin < survivors.size(); begin += PANEL) {
    int64_t count = std::min<int64_t>(PANEL, survivors.size() - begin);
    const int32_t* terms = survivors.data() + begin;
    float scale[PANEL], error[PANEL], norm[PANEL], bias[PANEL];
    fetch_rows(directions.rows, stride, survivors, begin + PANEL, PANEL);
    for (int64_t j = 0; j < count; j++) {
      const uint8_t* row = directions.rows + terms[j] * stride;
      for (int64_t d = 0; d < stride; d += CODE_GROUP)
        std::memcpy(gathered.data() + d * PANEL + j * CODE_GROUP, row + d, CODE_GROUP);
      scale[j] = p.all.terms.scale[terms[j]];
      error[j] = p.all.terms.error[terms[j]];
      norm[j] = p.all.terms.norm[terms[j]];
      bias[j] = p.bias ? p.bias[terms[j]] : 0;
    }
    screen_panel({gathered.data(), scale, error, norm, bias}, count, text, text.all, tokens,
                 [&](int64_t j) { candidates.push_back(terms[j]); });
  }
}

// Compute the candidates' exact weights in float32 and append those above zero to `active`. `gathered` is scratch.
void append_active(const Projection& p, const Text& text, const float* hidden, const std::vector<int32_t>& candidates,
                   std::vector<float>& gathered, std::vector<ActiveTerm>& active) {
  gathered.resize(p.size * PANEL);
  for (size_t begin = 0; begin < candidates.size(); begin += PANEL) {
    int64_t count = std::min<int64_t>(PANEL, candidates.size() - begin);
    const int32_t* terms = candidates.data() + begin;
    fetch_rows(p.weight, p.size * sizeof(float), candidates, begin + PANEL, PANEL);
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

// Rows of weights in a panel, the unit to which the dimensions of codes are padded, and how many of a row are together.
int64_t panel_rows() { return PANEL; }
int64_t code_unit() { return CODE_UNIT; }
int64_t code_group() { return CODE_GROUP; }

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
        put_codes(codes, out, j, d, stride);
        errors = multiply_add(residual, residual, errors);
        norms = multiply_add(values, values, norms);
      }
      scale[term] = step;
      error[term] = std::sqrt(sum_lanes(errors));
      norm[term] = std::sqrt(sum_lanes(norms));
    }
  }
}

// Find the active terms of texts with states hidden [tokens, size], split by offsets [texts + 1]. `codes` are those of
// `pack_codes`: packed, step, error and norm. `directions` is null, or: packed, step, error and norm of the vocabulary
// in `first` directions, its rows of codes, its products with the states' mean plus bias, the packed rotation, and what
// is added to rotated states. Writes the number of active terms into counts [texts], and behind it how many terms the
// first directions left; the result is to be passed to `collect`, which writes out the terms and frees it.
Found* find(const float* hidden, const int64_t* offsets, int64_t texts, const float* weight, const float* bias,
            const void* const* codes, int64_t vocabulary, int64_t size, const void* const* directions, int64_t first,
            int64_t* counts, int threads) {
  auto floats = [](const void* values) { return static_cast<const float*>(values); };
  auto open = [&](const void* const* parts, const float* bias, int64_t size) {
    return Codes{{static_cast<const uint8_t*>(parts[0]), floats(parts[1]), floats(parts[2]), floats(parts[3]), bias},
                 round_up(size, CODE_UNIT)};
  };
  Projection p{weight, bias, vocabulary, size, open(codes, bias, size)};
  Directions d{};
  if (directions)
    d = {open(directions, floats(directions[5]), first), static_cast<const uint8_t*>(directions[4]),
         floats(directions[6]), floats(directions[7]), first};
  int64_t panels = count_panels(vocabulary), left = 0;
  std::vector<Text> all(texts);
  std::vector<int64_t> groups{0}; // first text of each group; last, the number of texts
  for (int64_t i = 0; i < texts; i++) {
    all[i] = {offsets[i], offsets[i + 1], {}, {}};
    if (i > groups.back() && offsets[i + 1] - offsets[groups.back()] > GROUP_TOKENS) groups.push_back(i);
  }
  groups.push_back(texts);
  int64_t group_count = groups.size() - 1, slices = 1;
  if (threads > 1) // where groups are few, the vocabulary is split too, so that every thread has work
    slices = std::clamp<int64_t>(TASKS_PER_THREAD * threads / group_count, 1,
                                 std::max<int64_t>(1, panels / MIN_SLICE_PANELS));
  Tokens tokens(offsets[texts], size), first_tokens(directions ? offsets[texts] : 0, first);
  const Codes& screen = directions ? d.codes : p.all;
  CodeTokens screened = (directions ? first_tokens : tokens).view();
  auto* found = new Found{slices, std::vector<std::vector<ActiveTerm>>(texts * slices)};
#pragma omp parallel num_threads(threads) reduction(+ : left)
  {
    std::vector<float> gathered;
    std::vector<uint8_t> gathered_codes;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < texts; i++) {
      Text& text = all[i];
      text.all = quantize_text(hidden + text.begin * size, size, size, text, tokens);
      if (directions && text.all.finite) text.first = quantize_first(hidden, size, d, text, first_tokens, gathered);
    }
    std::vector<std::vector<int32_t>> candidates;
    std::vector<int32_t> survivors;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < group_count * slices; task++) {
      int64_t group = task / slices, slice = task % slices, begin = groups[group], end = groups[group + 1];
      int64_t first_panel = panels * slice / slices, last = panels * (slice + 1) / slices;
      candidates.assign(end - begin, {});
      for (int64_t panel = first_panel; panel < last; panel++)
        for (int64_t i = begin; i < end; i++) {
          if (all[i].end == all[i].begin || !all[i].all.finite) continue;
          int64_t at = panel * PANEL;
          screen_panel(screen.panel(at), vocabulary - at, all[i], directions ? all[i].first : all[i].all, screened,
                       [&](int64_t j) { candidates[i - begin].push_back(int32_t(at + j)); });
        }
      for (int64_t i = begin; i < end; i++) {
        if (directions) {
          survivors.swap(candidates[i - begin]);
          candidates[i - begin].clear();
          left += survivors.size();
          screen_survivors(p, d, all[i], tokens.view(), survivors, gathered_codes, candidates[i - begin]);
        }
        std::vector<ActiveTerm>& active = found->lists[i * slices + slice];
        append_active(p, all[i], hidden, candidates[i - begin], gathered, active);
        // A non-finite state makes all weights of its text NaN, as a NaN state does in the plain formula.
        int64_t end_term = all[i].all.finite ? 0 : std::min(vocabulary, last * PANEL);
        for (int64_t term = first_panel * PANEL; term < end_term; term++) active.push_back({int32_t(term), 0, NAN});
      }
    }
  }
  for (int64_t i = 0; i < texts; i++) {
    counts[i] = 0;
    for (int64_t slice = 0; slice < slices; slice++) counts[i] += found->lists[i * slices + slice].size();
  }
  counts[texts] = left;
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
