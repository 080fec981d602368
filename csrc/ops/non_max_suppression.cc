// NonMaxSuppression: per batch and class, boxes in descending order of score, each kept unless it
// overlaps a kept one too much. How many remain depends on data. Limited by the comparisons with
// the boxes kept so far, whose corners lie side by side.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/movement.h"

namespace lepton {
namespace {

struct Corners {
  float y1, x1, y2, x2, area;
};

Corners corners_of(const float* box, bool center) {
  float y1 = box[0], x1 = box[1], y2 = box[2], x2 = box[3];
  if (center) {
    const float half_width = box[2] / 2, half_height = box[3] / 2;
    y1 = box[1] - half_height, y2 = box[1] + half_height;
    x1 = box[0] - half_width, x2 = box[0] + half_width;
  }
  if (y1 > y2) std::swap(y1, y2);
  if (x1 > x2) std::swap(x1, x2);
  return {y1, x1, y2, x2, (y2 - y1) * (x2 - x1)};
}

bool overlap_more(const Corners& a, const Corners& b, float threshold) {
  const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (!(height > 0) || !(width > 0) || !(a.area > 0) || !(b.area > 0)) return false;
  const float both = height * width;
  const float either = a.area + b.area - both;
  return either > 0 && both / either > threshold;
}

struct Limits {
  int64_t most;  // boxes per class
  float overlap, score;
};

// Boxes of one class that stay, best first.
void select(const float* boxes, const float* scores, int64_t count, bool center,
            const Limits& limits, std::vector<int64_t>* order, std::vector<int64_t>* kept) {
  order->clear();
  for (int64_t i = 0; i < count; ++i)
    if (scores[i] > limits.score) order->push_back(i);
  std::stable_sort(order->begin(), order->end(),
                   [scores](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  std::vector<Corners> standing;
  kept->clear();
  for (int64_t i : *order) {
    if (static_cast<int64_t>(kept->size()) >= limits.most) return;
    const Corners box = corners_of(boxes + i * 4, center);
    const bool suppressed =
        std::any_of(standing.begin(), standing.end(),
                    [&](const Corners& other) { return overlap_more(box, other, limits.overlap); });
    if (suppressed) continue;
    standing.push_back(box);
    kept->push_back(i);
  }
}

template <typename T>
T scalar_or(const DynamicArgs& args, int i, int count, T otherwise) {
  if (i >= count || !args.input(i).present) return otherwise;
  return *static_cast<const T*>(args.input(i).data);
}

class NonMaxSuppressionOp final : public Op {
 public:
  NonMaxSuppressionOp(bool center, int inputs) : center_(center), inputs_(inputs) {}

  Status bind(BindContext& context) const override {
    const Shape &boxes = context.input(0).shape, &scores = context.input(1).shape;
    if (boxes.rank != 3 || scores.rank != 3 || boxes[2] != 4 || boxes[0] != scores[0] ||
        boxes[1] != scores[2])
      return invalid_input("NonMaxSuppression: boxes " + boxes.str() + " and scores " +
                           scores.str() + " do not fit");
    for (int i = 2; i < inputs_; ++i)
      if (context.input(i).present && context.input(i).shape.elements() != 1)
        return invalid_input("NonMaxSuppression: a limit must be one value");
    context.set_dynamic_run([this](DynamicArgs& args) { return run(args); });
    return {};
  }

 private:
  Status run(DynamicArgs& args) const {
    const Shape &boxes = args.input(0).shape, &scores = args.input(1).shape;
    const float lowest = -std::numeric_limits<float>::infinity();
    const Limits limits{scalar_or<int64_t>(args, 2, inputs_, 0),
                        scalar_or<float>(args, 3, inputs_, 0.f),
                        scalar_or<float>(args, 4, inputs_, lowest)};
    std::vector<int64_t> selected, order, kept;
    const auto* all_boxes = static_cast<const float*>(args.input(0).data);
    const auto* all_scores = static_cast<const float*>(args.input(1).data);
    for (int64_t b = 0; b < scores[0]; ++b)
      for (int64_t c = 0; c < scores[1]; ++c) {
        select(all_boxes + b * boxes[1] * 4, all_scores + (b * scores[1] + c) * scores[2],
               scores[2], center_, limits, &order, &kept);
        for (int64_t i : kept) selected.insert(selected.end(), {b, c, i});
      }
    const auto rows = static_cast<int64_t>(selected.size() / 3);
    void* to = args.allocate(0, DType::kS64, {rows, 3});
    if (to == nullptr) return {Code::kOutOfMemory, "NonMaxSuppression: output"};
    std::copy(selected.begin(), selected.end(), static_cast<int64_t*>(to));
    return {};
  }

  bool center_;
  int inputs_;
};

}  // namespace

Status make_non_max_suppression(const StepDesc& desc, std::unique_ptr<Op>* op) {
  LEPTON_RETURN_IF_ERROR(check_operands(desc, 2, 5));
  for (size_t i : {0, 1, 3, 4})
    if (desc.has_input(i) && desc.inputs[i].dtype != DType::kF32)
      return unsupported("NonMaxSuppression of other numbers than float32");
  if (desc.has_input(2) && desc.inputs[2].dtype != DType::kS64)
    return invalid_model("NonMaxSuppression: max_output_boxes_per_class must be int64");
  if (desc.outputs[0] != DType::kS64)
    return invalid_model("NonMaxSuppression: the output must be int64");
  *op = std::make_unique<NonMaxSuppressionOp>(desc.attrs->i("center_point_box") != 0,
                                              static_cast<int>(desc.inputs.size()));
  return {};
}

}  // namespace lepton
