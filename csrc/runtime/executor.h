// Executor: the operators of one plan, and contexts bound to the shapes it has seen. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/context.h"

namespace lepton {

// Runs host step `id` (registered by the bindings; the runtime itself knows no Python).
using HostFn = std::function<Status(int64_t id, DynamicArgs& args)>;

struct ExecutorOptions {
  int threads = 0;  // 0 = all usable processors
  HostFn host;
};

class Executor {
 public:
  static Status create(std::shared_ptr<const Plan> plan, ExecutorOptions options,
                       std::unique_ptr<Executor>* executor);

  const Plan& plan() const { return *plan_; }
  const Op& op(size_t step) const { return *ops_[step]; }
  int threads() const { return options_.threads; }

  // Whether input i may have this shape.
  bool fits(size_t i, const Shape& shape) const;

  // An idle context bound to these shapes, else null.
  std::unique_ptr<Context> take_idle(const std::vector<Shape>& shapes);
  // A context bound to these shapes, for one run; give it back with release().
  Status acquire(const std::vector<Shape>& shapes, std::unique_ptr<Context>* context);
  void release(std::unique_ptr<Context> context);

 private:
  // Idle contexts kept, most recently used last.
  static constexpr size_t kIdleContexts = 8;

  Status check_shapes(const std::vector<Shape>& shapes) const;
  std::unique_ptr<Context> take_oldest();

  std::shared_ptr<const Plan> plan_;
  ExecutorOptions options_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> idle_;
};

// Makes the operator of one step: from ops.inc, a library's own, or a host step ("lepton.Host").
Status make_op(const StepDesc& desc, const HostFn& host, std::unique_ptr<Op>* op);

}  // namespace lepton
