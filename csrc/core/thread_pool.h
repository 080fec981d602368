// One process-wide pool. A parallel loop is a fixed set of chunks claimed from an atomic counter;
// the caller always works, so a loop finishes even when every worker is busy elsewhere, and results
// do not depend on how many threads took part. Workers only take processors that no caller needs:
// where as many runs are in progress as there are processors, each keeps to its own thread.
#pragma once

#include <cstdint>

namespace lepton {

class ThreadPool;

// What one run may use: the shared pool and how many threads at most (1 = serial). Passed by value.
class Parallel {
 public:
  Parallel() = default;
  Parallel(ThreadPool* pool, int threads) : pool_(pool), threads_(threads) {}

  int threads() const { return threads_; }

  // Calls body(chunk, thread) for every chunk in [0, chunks); thread in [0, threads()) is the
  // caller's slot, to index per-thread scratch. body must not throw.
  template <typename F>
  void loop(int64_t chunks, const F& body) const {
    if (threads_ <= 1 || chunks <= 1) {
      for (int64_t i = 0; i < chunks; ++i) body(i, 0);
      return;
    }
    loop_erased(
        chunks, [](const void* f, int64_t i, int t) { (*static_cast<const F*>(f))(i, t); }, &body);
  }

 private:
  using Body = void (*)(const void*, int64_t, int);
  void loop_erased(int64_t chunks, Body body, const void* context) const;

  ThreadPool* pool_ = nullptr;
  int threads_ = 1;
};

// Marks a run in progress, whose caller occupies a processor. Workers wait for loops only while
// there is one.
class RunScope {
 public:
  RunScope();
  ~RunScope();
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;
};

// The pool of this process, made on first use (again after fork).
ThreadPool* process_pool();

// Processors this process may use: affinity mask and cgroup quota respected, at least 1.
int usable_processors();

}  // namespace lepton
