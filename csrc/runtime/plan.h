// A plan: the compiled form of a model for one ISA. A flat list of steps over numbered tensors,
// with constants already packed for the chosen kernels. Immutable once parsed.
//
// Byte layout (little-endian; python/lepton_rt/plan.py writes it). `meta`, in order:
//   string isa, string producer
//   u32 count, then per tensor: string name, u8 dtype, u8 kind (0 computed, 1 constant), u8 rank,
//       i64 dims[rank] (constants), u32 blob (index into the blob table; computed tensors: 0)
//   u32 count, then per graph input: u32 tensor, u8 rank (255 = any), i64 dims[rank] (-1 = any)
//   u32 count, then per graph output: u32 tensor
//   u32 count, then per step: string op, string kernel, string name,
//       u32 count + i32 input tensors (-1 omitted), u32 count + i32 output tensors (-1 omitted),
//       u32 count + attributes: string name, u8 kind, u32 count, padding to 8, payload. The payload
//       of kind 3 is the meta of a plan: a body of If, Loop or Scan, over the same blobs.
// A string is u32 length + bytes. Blobs are byte ranges beside meta, 64-byte aligned.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ops/op.h"
#include "runtime/memory.h"

namespace lepton {

constexpr int kAlways = 1 << 30;

// Operator of a step that a callback runs, outside the runtime.
constexpr std::string_view kHostStep = "lepton.Host";

struct PlanTensor {
  std::string_view name;
  TensorInfo info;    // shape and data for constants
  int producer = -1;  // step index; -1 for constants and graph inputs
  int last_use = -1;  // index of the last step that reads it; kAlways for graph outputs
  bool is_input = false;
};

struct PlanInput {
  int tensor;
  int rank;  // -1 = any
  int64_t dims[kMaxRank];
};

class Plan;

// A body of If, Loop or Scan.
struct PlanBody {
  std::string_view name;
  std::shared_ptr<const Plan> plan;
};

struct PlanStep {
  std::string_view op, kernel, name;
  std::vector<int> inputs, outputs;  // tensor ids, -1 omitted
  Attrs attrs;
  std::vector<PlanBody> bodies;
};

class Plan {
 public:
  // Parses and validates. `meta` must be 8-byte aligned; it and the blobs must outlive the plan
  // (which may be given them as its storage).
  static Status parse(const std::byte* meta, size_t size, const std::vector<Blob>& blobs,
                      std::unique_ptr<Plan>* plan) {
    return parse(meta, size, blobs, 0, plan);
  }

  Isa isa = Isa::k_scalar;
  std::string_view producer;
  std::vector<PlanTensor> tensors;
  std::vector<PlanInput> inputs;
  std::vector<int> outputs;
  std::vector<PlanStep> steps;

  Blob meta = {};                       // what the plan was parsed from, and points into
  std::vector<Blob> blobs;              // empty in a body, which uses those around it
  std::string_view annotations;         // of a plan from a file, for whoever made it
  std::shared_ptr<const void> storage;  // owns all of these bytes when the caller does not

 private:
  static Status parse(const std::byte* meta, size_t size, const std::vector<Blob>& blobs, int depth,
                      std::unique_ptr<Plan>* plan);
};

// What the factory of step `index` reads. Points into the plan.
StepDesc describe(const Plan& plan, size_t index);

}  // namespace lepton
