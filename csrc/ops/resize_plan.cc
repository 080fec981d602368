#include "ops/resize_plan.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "ops/kernel_list.h"
#include "ops/movement.h"

namespace lepton {

#define LEPTON_RESIZE(blend, gather, isa) \
  void blend(const ResizeBlendParams&);   \
  void gather(const ResizeGatherParams&);
#include "ops/resize_kernels.inc"
#undef LEPTON_RESIZE

namespace {

const ResizeInfo kResizeInfos[] = {
#define LEPTON_RESIZE(blend, gather, isa) \
  {#blend, Isa::k_##isa, LEPTON_KERNEL_POINTER(isa, blend), LEPTON_KERNEL_POINTER(isa, gather)},
#include "ops/resize_kernels.inc"
#undef LEPTON_RESIZE
};
const KernelList<ResizeInfo> kResizeKernels{kResizeInfos,
                                            sizeof kResizeInfos / sizeof kResizeInfos[0]};

constexpr int64_t kTaskElements = 16 << 10;

// Writes every element twice, as one store of twice the width.
template <typename T, typename Wide>
void double_row(const char* src, char* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, src + i * static_cast<int64_t>(sizeof v), sizeof v);
    const Wide pair = static_cast<Wide>(static_cast<Wide>(v) << (8 * sizeof(T)) | v);
    std::memcpy(dst + i * static_cast<int64_t>(sizeof pair), &pair, sizeof pair);
  }
}

// Elements as float32 and back. Back: towards zero, as casts do, within the type's range.
template <typename T>
void to_float(const void* src, int64_t n, float* dst) {
  const T* s = static_cast<const T*>(src);
  for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<float>(s[i]);
}
template <typename T>
void from_float(const float* src, int64_t n, void* dst) {
  constexpr float lo = std::is_signed_v<T> ? -128.f : 0.f, hi = std::is_signed_v<T> ? 127.f : 255.f;
  T* d = static_cast<T*>(dst);
  for (int64_t i = 0; i < n; ++i)
    d[i] = static_cast<T>(static_cast<int>(!(src[i] > lo) ? lo : src[i] < hi ? src[i] : hi));
}

}  // namespace

const ResizeInfo* best_resize_kernel(Isa max) { return kResizeKernels.best(max); }

// Neighbouring axes that keep their size become one; a trailing one is left out, as `run` elements.
void make_resize_levels(const Shape& from, const Shape& to, std::vector<AxisTaps> taps,
                        std::vector<ResizeLevel>* levels, int64_t* run) {
  for (int i = 0; i < from.rank; ++i) {
    if (taps[i].identity && !levels->empty() && levels->back().taps.identity) {
      levels->back().in *= from[i];
      levels->back().out *= from[i];
    } else {
      levels->push_back({from[i], to[i], 1, std::move(taps[i])});
    }
  }
  *run = 1;
  if (!levels->empty() && levels->back().taps.identity) {
    *run = levels->back().in;
    levels->pop_back();
  }
}

NearestPlan::NearestPlan(std::vector<ResizeLevel> levels, int64_t run)
    : levels_(std::move(levels)), run_(run) {
  for (size_t i = 0; i + 1 < levels_.size(); ++i) rows_ *= levels_[i].out;
  const ResizeLevel& last = levels_.back();
  doubles_ = last.out == 2 * last.in;
  for (int64_t o = 0; o < last.out && doubles_; ++o) doubles_ = last.taps.index[o] == o / 2;
}

// Input offset in bytes of row r of all levels but the last.
int64_t NearestPlan::row_offset(int64_t r) const {
  int64_t offset = 0, stride = run_ * levels_.back().in;
  for (int i = static_cast<int>(levels_.size()) - 2; i >= 0; --i) {
    const ResizeLevel& level = levels_[i];
    const int64_t o = r % level.out;
    offset += (level.taps.identity ? o : level.taps.index[o]) * stride;
    r /= level.out;
    stride *= level.in;
  }
  return offset;
}

template <int64_t kRun>
void NearestPlan::copy_runs(const char* src, char* dst) const {
  const ResizeLevel& last = levels_.back();
  const int64_t bytes = kRun > 0 ? kRun : run_;
  for (int64_t o = 0; o < last.out; ++o)
    std::memcpy(dst + o * bytes, src + last.taps.index[o] * bytes, static_cast<size_t>(bytes));
}

void NearestPlan::copy_row(const char* src, char* dst) const {
  const int64_t in = levels_.back().in;
  if (doubles_ && run_ == 1) return double_row<uint8_t, uint16_t>(src, dst, in);
  if (doubles_ && run_ == 2) return double_row<uint16_t, uint32_t>(src, dst, in);
  if (doubles_ && run_ == 4) return double_row<uint32_t, uint64_t>(src, dst, in);
  switch (run_) {
    case 1: copy_runs<1>(src, dst); break;
    case 2: copy_runs<2>(src, dst); break;
    case 4: copy_runs<4>(src, dst); break;
    case 8: copy_runs<8>(src, dst); break;
    default: copy_runs<0>(src, dst); break;
  }
}

void NearestPlan::execute(const char* src, char* dst, const Parallel& parallel) const {
  const int64_t row_bytes = levels_.back().out * run_;
  parallel_ranges(parallel, rows_, 8 * kTaskElements / row_bytes, [&](int64_t r, int64_t end) {
    int64_t previous = -1;
    for (; r < end; ++r) {
      const int64_t offset = row_offset(r);
      char* row = dst + r * row_bytes;
      if (offset == previous) {
        std::memcpy(row, row - row_bytes, static_cast<size_t>(row_bytes));
      } else {
        copy_row(src + offset, row);
      }
      previous = offset;
    }
  });
}

InterpolationPlan::InterpolationPlan(std::vector<ResizeLevel> levels, int64_t run, DType dtype,
                                     const ResizeInfo* kernel)
    : kernel_(kernel), element_size_(static_cast<int64_t>(size_of(dtype))) {
  if (dtype == DType::kU8) {
    to_float_ = to_float<uint8_t>;
    from_float_ = from_float<uint8_t>;
  } else if (dtype == DType::kS8) {
    to_float_ = to_float<int8_t>;
    from_float_ = from_float<int8_t>;
  }
  assign_levels(std::move(levels), run);
}

// src [pre][in][inner] → dst [pre][out][inner].
void InterpolationPlan::apply_stage(const ResizeLevel& level, int64_t pre, const float* src,
                                    float* dst) const {
  const AxisTaps& taps = level.taps;
  const int64_t inner = level.inner;
  for (int64_t i = 0; i < pre; ++i, src += level.in * inner, dst += level.out * inner) {
    if (inner == 1) {
      kernel_->gather({static_cast<size_t>(level.out), static_cast<size_t>(taps.taps),
                       static_cast<size_t>(level.out), taps.index.data(), taps.weight.data(), src,
                       dst});
      continue;
    }
    for (int64_t o = 0; o < level.out; ++o) {
      const float* rows[4];
      float weights[4];
      for (int t = 0; t < taps.taps; ++t) {
        rows[t] = src + taps.index[t * level.out + o] * inner;
        weights[t] = taps.weight[t * level.out + o];
      }
      kernel_->run({static_cast<size_t>(inner), static_cast<size_t>(taps.taps), rows, weights,
                    dst + o * inner});
    }
  }
}

// One slab of the input, in float32, through all stages. work: two slabs of stage_elements.
void InterpolationPlan::make_row(const char* src, float* dst, float* work) const {
  float* buffers[2] = {work, work + round_up(stage_elements_)};
  const float* current = reinterpret_cast<const float*>(src);
  int next = 0;
  if (to_float_ != nullptr) {
    float* converted = stages_.empty() ? dst : buffers[next];
    to_float_(src, slab_in_, converted);
    current = converted;
    next = 1 - next;
  } else if (stages_.empty()) {
    std::memcpy(dst, src, static_cast<size_t>(slab_in_) * sizeof(float));
  }
  int64_t pre = 1;
  for (size_t s = 0; s < stages_.size(); ++s) {
    float* to = s + 1 == stages_.size() ? dst : buffers[next];
    const ResizeLevel& level = stages_[s];
    if (level.taps.identity) {
      pre *= level.in;
      continue;
    }
    apply_stage(level, pre, current, to);
    pre *= level.out;
    current = to;
    next = 1 - next;
  }
}

void InterpolationPlan::run_task(int64_t task, const char* src, char* dst, float* scratch) const {
  const int64_t tasks_each = tasks_per_outer();
  const int64_t first = task % tasks_each * rows_per_task_;
  const int64_t last = std::min(first + rows_per_task_, vertical_.out);
  src += task / tasks_each * vertical_.in * slab_in_ * element_size_;
  dst += task / tasks_each * vertical_.out * slab_out_ * element_size_;
  const int64_t taps = vertical_taps();
  float* work = scratch + taps * ring_elements();
  float* result = work + 2 * round_up(stage_elements_);
  int64_t in_ring[4] = {-1, -1, -1, -1};
  for (int64_t o = first; o < last; ++o) {
    const float* rows[4];
    float weights[4];
    char* out_row = dst + o * slab_out_ * element_size_;
    float* out = from_float_ != nullptr ? result : reinterpret_cast<float*>(out_row);
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t row = vertical_.taps.identity ? o : vertical_.taps.index[t * vertical_.out + o];
      const char* from = src + row * slab_in_ * element_size_;
      weights[t] = vertical_.taps.identity ? 1.f : vertical_.taps.weight[t * vertical_.out + o];
      if (vertical_.taps.identity) {
        make_row(from, out, work);
      } else if (stages_.empty() && to_float_ == nullptr) {
        rows[t] = reinterpret_cast<const float*>(from);
      } else {
        float* slot = scratch + row % taps * ring_elements();
        if (in_ring[row % taps] != row) make_row(from, slot, work);
        in_ring[row % taps] = row;
        rows[t] = slot;
      }
    }
    if (!vertical_.taps.identity)
      kernel_->run({static_cast<size_t>(slab_out_), static_cast<size_t>(taps), rows, weights, out});
    if (from_float_ != nullptr) from_float_(result, slab_out_, out_row);
  }
}
// Which level is blended last (vertical_), and which make up the slab.
void InterpolationPlan::assign_levels(std::vector<ResizeLevel> levels, int64_t run) {
  int64_t inner = run;
  for (size_t i = levels.size(); i-- > 0; inner *= levels[i].in) levels[i].inner = inner;
  const bool only_last_axis =
      run == 1 && !levels.back().taps.identity &&
      (levels.size() == 1 || (levels.size() == 2 && levels[0].taps.identity));
  size_t next = 0;
  if (!only_last_axis) {
    if (levels[0].taps.identity) outer_ = levels[next++].in;
    vertical_ = std::move(levels[next++]);
  } else if (levels.size() == 2) {  // it has no runs to blend: rows pass through
    vertical_ = std::move(levels[next++]);
  } else {
    vertical_.taps.identity = true;
  }
  slab_in_ = slab_out_ = run;
  for (size_t i = next; i < levels.size(); ++i) slab_in_ *= levels[i].in;
  // Stages run outermost first, so a stage's runs hold inner axes that are not resized yet.
  int64_t elements = stage_elements_ = slab_in_;
  for (size_t i = next; i < levels.size(); ++i) {
    elements = elements / levels[i].in * levels[i].out;
    stage_elements_ = std::max(stage_elements_, elements);
    slab_out_ *= levels[i].out;
    stages_.push_back(std::move(levels[i]));
  }
  rows_per_task_ = std::max<int64_t>(8, kTaskElements / slab_out_);
}

}  // namespace lepton
