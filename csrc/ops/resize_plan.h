// The two ways Resize runs once its shapes are known: nearest moves bytes, linear and cubic blend.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/shape.h"
#include "core/thread_pool.h"
#include "ops/resize.h"
#include "ops/resize_taps.h"

namespace lepton {

struct ResizeInfo {
  std::string_view name;
  Isa isa;
  ResizeBlendKernel run;
  ResizeGatherKernel gather;
};
// The kernels that run here under the cap.
const ResizeInfo* best_resize_kernel(Isa max);

// One axis as the loops see it: [.., in or out, inner].
struct ResizeLevel {
  int64_t in = 1, out = 1, inner = 1;
  AxisTaps taps;
};

// Neighbouring axes that keep their size become one; a trailing one is left out, as `run` elements.
void make_resize_levels(const Shape& from, const Shape& to, std::vector<AxisTaps> taps,
                        std::vector<ResizeLevel>* levels, int64_t* run);

// Nearest: levels of index tables over runs of bytes.
class NearestPlan {
 public:
  // run: bytes behind the last level, which is one that changes.
  NearestPlan(std::vector<ResizeLevel> levels, int64_t run);
  void execute(const char* src, char* dst, const Parallel& parallel) const;

 private:
  int64_t row_offset(int64_t r) const;
  void copy_row(const char* src, char* dst) const;
  template <int64_t kRun>
  void copy_runs(const char* src, char* dst) const;

  std::vector<ResizeLevel> levels_;
  int64_t run_ = 1;
  int64_t rows_ = 1;      // outputs of all levels but the last
  bool doubles_ = false;  // the last level repeats every element twice
};

// Linear and cubic: outer · [vertical level] · slab, where the slab's own levels are resized row by
// row before the vertical level blends them.
class InterpolationPlan {
 public:
  // run: elements behind the last level, which is one that changes.
  InterpolationPlan(std::vector<ResizeLevel> levels, int64_t run, DType dtype,
                    const ResizeInfo* kernel);

  int64_t tasks() const { return outer_ * tasks_per_outer(); }
  // Floats one thread keeps: the ring, two stages in progress, one result to convert.
  int64_t scratch_elements() const {
    return vertical_taps() * ring_elements() + 2 * round_up(stage_elements_) + ring_elements();
  }
  void run_task(int64_t task, const char* src, char* dst, float* scratch) const;

 private:
  using ToFloat = void (*)(const void*, int64_t, float*);
  using FromFloat = void (*)(const float*, int64_t, void*);

  static int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }
  int64_t ring_elements() const { return round_up(slab_out_); }
  int64_t vertical_taps() const { return vertical_.taps.identity ? 1 : vertical_.taps.taps; }
  int64_t tasks_per_outer() const { return (vertical_.out + rows_per_task_ - 1) / rows_per_task_; }
  void assign_levels(std::vector<ResizeLevel> levels, int64_t run);
  void apply_stage(const ResizeLevel& level, int64_t pre, const float* src, float* dst) const;
  void make_row(const char* src, float* dst, float* work) const;

  const ResizeInfo* kernel_ = nullptr;
  int64_t element_size_ = 4;
  ToFloat to_float_ = nullptr;  // null for float32
  FromFloat from_float_ = nullptr;
  int64_t outer_ = 1;
  ResizeLevel vertical_;             // identity: rows pass through
  std::vector<ResizeLevel> stages_;  // of the slab
  int64_t slab_in_ = 1, slab_out_ = 1;
  int64_t stage_elements_ = 0;  // largest slab on the way
  int64_t rows_per_task_ = 1;
};

}  // namespace lepton
