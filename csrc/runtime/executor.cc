#include "runtime/executor.h"

#include <algorithm>

#include "ops/custom_op.h"
#include "runtime/control_flow.h"

namespace lepton {
namespace {

// An operator without a native kernel: a callback allocates and fills its outputs.
class HostOp : public Op {
 public:
  HostOp(const HostFn& fn, int64_t id) : fn_(fn), id_(id) {}
  Status bind(BindContext& context) const override {
    const HostOp* self = this;
    context.set_dynamic_run([self](DynamicArgs& args) { return self->fn_(self->id_, args); });
    return {};
  }

 private:
  const HostFn& fn_;
  int64_t id_;
};

}  // namespace

Status make_op(const StepDesc& desc, const HostFn& host, std::unique_ptr<Op>* op) {
  if (desc.op == kHostStep) {
    if (!host) return unsupported("the plan has host steps, which need Python");
    *op = std::make_unique<HostOp>(host, desc.attrs->i("id", -1));
    return {};
  }
  const OpFactory factory = find_op(desc.op);
  if (factory != nullptr) return factory(desc, op);
  if (const lepton_op* custom = find_custom_op(desc.op)) return make_custom_op(*custom, desc, op);
  return unsupported("no native kernel for " + std::string(desc.op));
}

Status Executor::create(std::shared_ptr<const Plan> plan, ExecutorOptions options,
                        std::unique_ptr<Executor>* out) {
  auto executor = std::make_unique<Executor>();
  executor->plan_ = std::move(plan);
  executor->options_ = std::move(options);
  if (executor->options_.threads <= 0) executor->options_.threads = usable_processors();
  const Plan& p = *executor->plan_;
  executor->ops_.resize(p.steps.size());
  for (size_t i = 0; i < p.steps.size(); ++i) {
    const StepDesc desc = describe(p, i);
    std::unique_ptr<Op>* op = &executor->ops_[i];
    Status status = p.steps[i].bodies.empty()
                        ? make_op(desc, executor->options_.host, op)
                        : make_control_flow(p.steps[i], desc, executor->options_, op);
    if (!status.ok())
      return {status.code(), std::string(p.steps[i].op) + " \"" + std::string(p.steps[i].name) +
                                 "\": " + status.message()};
  }
  *out = std::move(executor);
  return {};
}

bool Executor::fits(size_t i, const Shape& shape) const {
  const PlanInput& want = plan_->inputs[i];
  if (!is_valid(shape) || (want.rank >= 0 && want.rank != shape.rank)) return false;
  for (int d = 0; d < want.rank; ++d)
    if (want.dims[d] >= 0 && want.dims[d] != shape.dims[d]) return false;
  return true;
}

Status Executor::check_shapes(const std::vector<Shape>& shapes) const {
  if (shapes.size() != plan_->inputs.size())
    return invalid_input("the model takes " + std::to_string(plan_->inputs.size()) +
                         " inputs, got " + std::to_string(shapes.size()));
  for (size_t i = 0; i < shapes.size(); ++i)
    if (!fits(i, shapes[i]))
      return invalid_input("input \"" + std::string(plan_->tensors[plan_->inputs[i].tensor].name) +
                           "\" cannot have shape " + shapes[i].str());
  return {};
}

std::unique_ptr<Context> Executor::take_idle(const std::vector<Shape>& shapes) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = idle_.rbegin(); it != idle_.rend(); ++it) {
    if ((*it)->input_shapes() != shapes) continue;
    std::unique_ptr<Context> found = std::move(*it);
    idle_.erase(std::next(it).base());
    return found;
  }
  return nullptr;
}

Status Executor::acquire(const std::vector<Shape>& shapes, std::unique_ptr<Context>* out) {
  *out = take_idle(shapes);
  if (*out != nullptr) return {};
  LEPTON_RETURN_IF_ERROR(check_shapes(shapes));
  std::unique_ptr<Context> context = take_oldest();
  if (context == nullptr) context = std::make_unique<Context>(*this);
  LEPTON_RETURN_IF_ERROR(context->bind(shapes));
  *out = std::move(context);
  return {};
}

// The context unused for longest, to be bound anew, once there are as many as are kept.
std::unique_ptr<Context> Executor::take_oldest() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.size() < kIdleContexts) return nullptr;
  std::unique_ptr<Context> oldest = std::move(idle_.front());
  idle_.erase(idle_.begin());
  return oldest;
}

void Executor::release(std::unique_ptr<Context> context) {
  std::unique_ptr<Context> evicted;  // destroyed after the lock is gone
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(context));
  if (idle_.size() > kIdleContexts) {
    evicted = std::move(idle_.front());
    idle_.erase(idle_.begin());
  }
}

}  // namespace lepton
