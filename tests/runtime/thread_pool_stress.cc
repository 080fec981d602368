// Callers from several threads share one pool, with loops of every length up to 300 chunks; exits
// with the number of chunks that were lost, run twice, or given a slot that was not theirs alone.
// For ThreadSanitizer: see test_thread_pool_races.py.
#include "core/thread_pool.h"

#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 4, kLoops = 3000, kMaxChunks = 300;

// Plain memory throughout: what the pool fails to order is a race.
int call(int seed) {
  std::vector<int> last_loop(kMaxChunks, -1);
  std::array<std::array<int64_t, 64>, kThreads> of_slot{};
  int64_t chunks_run = 0, chunks_wanted = 0;
  int wrong = 0;
  for (int loop = 0; loop < kLoops; ++loop) {
    const lepton::RunScope run;
    const lepton::Parallel parallel(lepton::process_pool(), kThreads);
    const int64_t chunks = 1 + (loop * 7 + seed) % kMaxChunks;
    parallel.loop(chunks, [&](int64_t chunk, int slot) {
      last_loop[chunk] = last_loop[chunk] < loop ? loop : kLoops;
      ++of_slot[slot][0];
    });
    for (int64_t i = 0; i < chunks; ++i) wrong += last_loop[i] != loop;
    chunks_wanted += chunks;
    // Long enough for workers to fall asleep.
    if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const auto& slot : of_slot) chunks_run += slot[0];
  return wrong + (chunks_run != chunks_wanted);
}

}  // namespace

int main() {
  std::atomic<int> wrong{call(1)};
  std::vector<std::thread> callers;
  for (int seed = 1; seed <= 3; ++seed) callers.emplace_back([&, seed] { wrong += call(seed); });
  for (std::thread& caller : callers) caller.join();
  return wrong == 0 ? 0 : 1;
}
