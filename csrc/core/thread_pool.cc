#include "core/thread_pool.h"

#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

namespace lepton {
namespace {

constexpr int kMaxThreads = 256;
// How long an idle worker keeps looking for the next loop of a run before it sleeps.
constexpr auto kSpin = std::chrono::microseconds(100);
// How often a caller looks for the last worker to leave before it offers its processor.
constexpr int kPatience = 2000;
// Bytes that processors fetch together: what one writes and others read lies apart by so much.
constexpr size_t kSharing = 128;

// Threads that occupy a processor on behalf of runs: their callers, and workers in loops.
struct alignas(kSharing) Busy {
  std::atomic<int> callers{0};
  std::atomic<int> workers{0};
  int threads() const {
    return callers.load(std::memory_order_relaxed) + workers.load(std::memory_order_relaxed);
  }
} busy;

// A run within a run (a loop's body, a host step's session) needs no processor of its own.
thread_local int runs_of_this_thread = 0;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// A forked child has no workers and perhaps a locked mutex: it leaves the parent's pool untouched
// and makes its own. Never destroyed, since detached workers may outlive static destruction.
std::atomic<ThreadPool*> pool{nullptr};

void forget_pool() {
  pool.store(nullptr, std::memory_order_release);
  busy.callers.store(0, std::memory_order_relaxed);
  busy.workers.store(0, std::memory_order_relaxed);
}

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, &forget_pool); });
}

}  // namespace

RunScope::RunScope() {
  watch_forks();
  if (runs_of_this_thread++ == 0) busy.callers.fetch_add(1, std::memory_order_relaxed);
}

RunScope::~RunScope() {
  if (--runs_of_this_thread == 0) busy.callers.fetch_sub(1, std::memory_order_relaxed);
}

// One parallel loop, on the caller's stack. Workers join and leave it under the pool's mutex, so
// the caller knows when nobody looks at it any more.
struct Loop {
  int64_t chunks;
  void (*body)(const void*, int64_t, int);
  const void* context;
  int slots;                                       // threads that may still join
  int next_thread = 1;                             // slot number of the next one; the caller is 0
  alignas(kSharing) std::atomic<int64_t> next{0};  // next unclaimed chunk
  alignas(kSharing) std::atomic<int> inside{0};    // workers in it

  // Works on the next chunk; false when there is none.
  bool work(int thread) {
    const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
    if (i >= chunks) return false;
    body(context, i, thread);
    return true;
  }
  bool wants_help() const { return slots > 0 && next.load(std::memory_order_relaxed) < chunks; }
};

class ThreadPool {
 public:
  void run(Loop& loop) {
    // Without a processor to spare the loop is not offered to anyone.
    const bool shared = busy.threads() < processors_;
    if (shared) post(loop);
    while (loop.work(0)) {
    }
    if (shared) withdraw(loop);
  }

 private:
  void post(Loop& loop) {
    std::lock_guard<std::mutex> lock(mutex_);
    grow(loop.slots);
    loops_.push_back(&loop);
    posted_.fetch_add(1, std::memory_order_release);
    if (sleeping_ > 0) wake_.notify_all();
  }

  // Returns when no worker is in the loop, and none can come to it.
  void withdraw(Loop& loop) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      loops_.erase(std::find(loops_.begin(), loops_.end(), &loop));
    }
    for (int i = 0; loop.inside.load(std::memory_order_acquire) != 0; ++i) {
      if (i < kPatience)
        pause();
      else
        std::this_thread::yield();
    }
  }

  // Adds workers up to `wanted`; fewer is fine, the caller does what they would have done.
  void grow(int wanted) {
    while (workers_ < std::min({wanted, processors_ - 1, kMaxThreads})) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, &ThreadPool::main, this) != 0) return;
      pthread_detach(thread);
      ++workers_;
    }
  }

  static void* main(void* self) {
    static_cast<ThreadPool*>(self)->worker();
    return nullptr;
  }

  void worker() {
    for (;;) {
      const uint64_t seen = posted_.load(std::memory_order_acquire);
      int thread = 0;
      if (Loop* loop = join(&thread)) {
        // A run that begins meanwhile gets the processor after this chunk.
        while (busy.threads() <= processors_ && loop->work(thread)) {
        }
        busy.workers.fetch_sub(1, std::memory_order_relaxed);
        loop->inside.fetch_sub(1, std::memory_order_release);
      } else {
        wait_for_work(seen);
      }
    }
  }

  // The loop with the fewest helpers, so that several runs share the workers fairly.
  Loop* join(int* thread) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (busy.threads() >= processors_) return nullptr;
    Loop* found = nullptr;
    for (Loop* loop : loops_)
      if (loop->wants_help() && (found == nullptr || loop->next_thread < found->next_thread))
        found = loop;
    if (found == nullptr) return nullptr;
    --found->slots;
    *thread = found->next_thread++;
    found->inside.fetch_add(1, std::memory_order_relaxed);
    busy.workers.fetch_add(1, std::memory_order_relaxed);
    return found;
  }

  // Spins as long as a run may post a loop and has a processor for it, then sleeps.
  void wait_for_work(uint64_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    while (is_spinning_worth_it() && std::chrono::steady_clock::now() < deadline) {
      for (int i = 0; i < 32; ++i) {
        if (posted_.load(std::memory_order_acquire) != seen) return;
        pause();
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleeping_;
    wake_.wait(lock, [&] { return posted_.load(std::memory_order_relaxed) != seen; });
    --sleeping_;
  }

  bool is_spinning_worth_it() const {
    return busy.callers.load(std::memory_order_relaxed) > 0 && busy.threads() < processors_;
  }

  const int processors_ = usable_processors();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Loop*> loops_;
  int sleeping_ = 0;
  int workers_ = 0;
  alignas(kSharing) std::atomic<uint64_t> posted_{0};  // loops ever posted
};

ThreadPool* process_pool() {
  ThreadPool* existing = pool.load(std::memory_order_acquire);
  if (existing != nullptr) return existing;
  watch_forks();
  auto* fresh = new ThreadPool;
  if (pool.compare_exchange_strong(existing, fresh, std::memory_order_acq_rel)) return fresh;
  delete fresh;
  return existing;
}

void Parallel::loop_erased(int64_t chunks, Body body, const void* context) const {
  Loop loop;
  loop.chunks = chunks;
  loop.body = body;
  loop.context = context;
  loop.slots = static_cast<int>(std::min<int64_t>(threads_, chunks)) - 1;
  pool_->run(loop);
}

namespace {

// Processors granted by a cgroup v2 or v1 CPU quota, rounded up; 0 when there is none.
int cgroup_processors() {
  long long quota = -1, period = 0;
  if (FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%lld %lld", &quota, &period) != 2) quota = -1;
    std::fclose(f);
  } else if (FILE* q = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {
    if (std::fscanf(q, "%lld", &quota) != 1) quota = -1;
    std::fclose(q);
    if (FILE* p = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
      if (std::fscanf(p, "%lld", &period) != 1) period = 0;
      std::fclose(p);
    }
  }
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min<long long>((quota + period - 1) / period, kMaxThreads));
}

}  // namespace

int usable_processors() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) n = CPU_COUNT(&set);
#endif
  const int quota = cgroup_processors();
  if (quota > 0) n = std::min(n, quota);
  return std::max(1, std::min(n, kMaxThreads));
}

}  // namespace lepton
