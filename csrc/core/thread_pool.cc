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
#include <memory>
#include <mutex>
#include <thread>

namespace lepton {
namespace {

constexpr int kMaxThreads = 256;
// How many loops may be shared at once; those beyond run on their callers' threads alone.
constexpr int kMaxJobs = 64;
// Into how many stretches, at most, the chunks of a loop are divided.
constexpr int kMaxStretches = 16;
// How long an idle worker keeps looking for the next loop before it sleeps.
constexpr auto kSpin = std::chrono::microseconds(100);
// How often a caller looks for the last worker to leave before it offers its processor.
constexpr int kPatience = 2000;
// Bytes that processors fetch together: what one writes and others read lies apart by so much.
constexpr size_t kSharing = 128;

// Threads that occupy a processor on behalf of runs: their callers, and workers in loops.
struct Busy {
  alignas(kSharing) std::atomic<int> callers{0};
  alignas(kSharing) std::atomic<int> workers{0};
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

// What a caller asks for.
struct Loop {
  int64_t chunks;
  void (*body)(const void*, int64_t, int);
  const void* context;
  int helpers;  // threads besides the caller, at most
};

// The door of a job, one word: whether it is open, how many threads may come in altogether besides
// the caller, how many have, and how many are inside.
struct Door {
  static constexpr uint64_t kOpen = uint64_t{1} << 63;
  static constexpr uint64_t kEntered = uint64_t{1} << 16;
  static constexpr uint64_t kInside = 1;
  static constexpr uint64_t opened_for(int threads) {
    return kOpen | static_cast<uint64_t>(threads) << 32;
  }

  uint64_t word;
  int inside() const { return static_cast<int>(word & 0xffff); }
  int entered() const { return static_cast<int>(word >> 16 & 0xffff); }
  bool admits() const {
    return (word & kOpen) != 0 && entered() < static_cast<int>(word >> 32 & 0xffff);
  }
};

// One parallel loop. Its chunks lie in stretches, one a thread, so that a thread finds in its cache
// what it wrote in the loop before; who is done with his own goes on with the others'. Jobs belong
// to the pool and are used again: whoever holds a stale pointer finds the door closed.
struct Job {
  struct alignas(kSharing) Stretch {
    std::atomic<int64_t> next{0};  // first unclaimed chunk
    int64_t end = 0;
  };

  alignas(kSharing) std::atomic<uint64_t> door{0};
  // Fixed while the door is open or someone is inside.
  void (*body)(const void*, int64_t, int) = nullptr;
  const void* context = nullptr;
  int stretches = 0;
  std::atomic<bool> taken{false};  // by a caller
  Stretch stretch[kMaxStretches];

  void prepare(const Loop& loop);
  // Works on the next chunk; false when there is none.
  bool work(int thread);
  // The number of this thread in the loop, 0 when it came too late.
  int enter();
  void leave() { door.fetch_sub(Door::kInside, std::memory_order_release); }
  // Returns when nobody is inside, and nobody can come.
  void close();
};

void Job::prepare(const Loop& loop) {
  body = loop.body;
  context = loop.context;
  stretches = std::min(loop.helpers + 1, kMaxStretches);
  for (int i = 0; i < stretches; ++i) {
    stretch[i].next.store(loop.chunks * i / stretches, std::memory_order_relaxed);
    stretch[i].end = loop.chunks * (i + 1) / stretches;
  }
}

bool Job::work(int thread) {
  for (int i = 0; i < stretches; ++i) {
    Stretch& s = stretch[(thread + i) % stretches];
    if (s.next.load(std::memory_order_relaxed) >= s.end) continue;
    const int64_t chunk = s.next.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= s.end) continue;
    body(context, chunk, thread);
    return true;
  }
  return false;
}

int Job::enter() {
  Door now{door.load(std::memory_order_relaxed)};
  while (now.admits()) {
    if (door.compare_exchange_weak(now.word, now.word + Door::kEntered + Door::kInside,
                                   std::memory_order_acquire, std::memory_order_relaxed))
      return now.entered() + 1;
  }
  return 0;
}

void Job::close() {
  Door now{door.fetch_and(~Door::kOpen, std::memory_order_acq_rel)};
  for (int i = 0; now.inside() != 0; ++i) {
    if (i < kPatience)
      pause();
    else
      std::this_thread::yield();
    now.word = door.load(std::memory_order_acquire);
  }
}

}  // namespace

RunScope::RunScope() {
  watch_forks();
  if (runs_of_this_thread++ == 0) busy.callers.fetch_add(1, std::memory_order_relaxed);
}

RunScope::~RunScope() {
  if (--runs_of_this_thread == 0) busy.callers.fetch_sub(1, std::memory_order_relaxed);
}

// Nothing here locks while workers are awake: a loop is posted by opening a job's door and counting
// up `posted_`, which they watch; they come and go by its door.
class ThreadPool {
 public:
  void run(Loop loop) {
    loop.helpers = std::min(loop.helpers, processors_ - 1);
    // Without a processor to spare the loop is not offered to anyone.
    Job* job = busy.callers.load(std::memory_order_relaxed) < processors_ ? take_job() : nullptr;
    if (job == nullptr) {
      for (int64_t i = 0; i < loop.chunks; ++i) loop.body(loop.context, i, 0);
      return;
    }
    if (workers_.load(std::memory_order_relaxed) < loop.helpers) grow(loop.helpers);
    job->prepare(loop);
    job->door.store(Door::opened_for(loop.helpers), std::memory_order_release);
    posted_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake(loop.helpers);
    while (job->work(0)) {
    }
    job->close();
    job->taken.store(false, std::memory_order_release);
  }

 private:
  Job* take_job() {
    for (int i = 0; i < num_jobs_; ++i) {
      Job& job = jobs_[i];
      if (!job.taken.load(std::memory_order_relaxed) &&
          !job.taken.exchange(true, std::memory_order_acquire))
        return &job;
    }
    return nullptr;
  }

  // Adds workers up to `wanted`; fewer is fine, the caller does what they would have done.
  void grow(int wanted) {
    std::lock_guard<std::mutex> lock(mutex_);
    while (workers_.load(std::memory_order_relaxed) < wanted) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, &ThreadPool::main, this) != 0) return;
      pthread_detach(thread);
      workers_.fetch_add(1, std::memory_order_relaxed);
    }
  }

  void wake(int helpers) {
    // A worker that is about to sleep holds the mutex until it can be woken.
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    if (helpers == 1)
      wake_.notify_one();
    else
      wake_.notify_all();
  }

  static void* main(void* self) {
    static_cast<ThreadPool*>(self)->worker();
    return nullptr;
  }

  void worker() {
    for (;;) {
      const uint64_t seen = posted_.load(std::memory_order_acquire);
      if (!help()) wait_for_work(seen);
    }
  }

  // Takes part in a loop that wants it, if a processor is free; false when nothing came of it.
  bool help() {
    Job* job = neediest();
    if (job == nullptr) return false;
    busy.workers.fetch_add(1, std::memory_order_relaxed);
    const int thread = busy.threads() <= processors_ ? job->enter() : 0;
    if (thread > 0) {
      // A run that begins meanwhile gets the processor after this chunk.
      while (busy.threads() <= processors_ && job->work(thread)) {
      }
      job->leave();
    }
    busy.workers.fetch_sub(1, std::memory_order_relaxed);
    return thread > 0;
  }

  // The loop with the fewest helpers, so that several runs share the workers fairly.
  Job* neediest() {
    Job* found = nullptr;
    int fewest = 0;
    for (int i = 0; i < num_jobs_; ++i) {
      const Door door{jobs_[i].door.load(std::memory_order_relaxed)};
      if (!door.admits() || (found != nullptr && door.entered() >= fewest)) continue;
      found = &jobs_[i];
      fewest = door.entered();
    }
    return found;
  }

  // Spins for a while as long as there is a processor for it, then sleeps.
  void wait_for_work(uint64_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    while (busy.threads() < processors_ && std::chrono::steady_clock::now() < deadline) {
      for (int i = 0; i < 32; ++i) {
        if (posted_.load(std::memory_order_acquire) != seen) return;
        pause();
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return posted_.load(std::memory_order_seq_cst) != seen; });
    sleeping_.fetch_sub(1, std::memory_order_relaxed);
  }

  const int processors_ = usable_processors();
  const int num_jobs_ = std::min(processors_, kMaxJobs);
  const std::unique_ptr<Job[]> jobs_{new Job[num_jobs_]};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int> workers_{0};
  alignas(kSharing) std::atomic<int> sleeping_{0};
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
  pool_->run({chunks, body, context, static_cast<int>(std::min<int64_t>(threads_, chunks)) - 1});
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
