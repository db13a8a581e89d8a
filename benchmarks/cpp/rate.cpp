// How many products of codes this processor computes with all operands in registers: what bounds the SPLADE head.

#include "../../utils/splade/cpp/products.h"

#include <chrono>

namespace {

template <int... I>
double measure(int64_t rounds, std::integer_sequence<int, I...>) {
  Ints sum[] = {splat(I * 0)...}, weights = splat(0x01010101), token = splat(0x02020202);
  auto started = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < rounds; i++) {
#if defined(SUMS_IN_16_BITS)
    Shorts pairs[sizeof...(I)];
    (set_pairs(pairs[I], weights, token), ...);
#pragma GCC unroll 3
    for (int64_t next = 4; next < CODE_UNIT; next += 4) (add_to_pairs(pairs[I], weights, token), ...);
    ((sum[I] += add_pairs(pairs[I])), ...);
#else
    (add_dot(sum[I], weights, token), ...);
#endif
  }
  std::chrono::duration<double> taken = std::chrono::steady_clock::now() - started;
  volatile int32_t used = sum_lanes((sum[I] + ...)); // so that the loop is not left out
  (void)used;
  return double(rounds) * sizeof...(I) * LANES * CODE_UNIT / taken.count();
}

} // namespace

extern "C" {

// Products a second on one thread, each with its addition.
double products_per_second() { return measure(20'000'000, std::make_integer_sequence<int, CODE_ROWS * PARTS>()); }
}
