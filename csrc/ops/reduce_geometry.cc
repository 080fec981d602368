#include "ops/reduce_geometry.h"

#include <algorithm>

#include "ops/movement.h"

namespace lepton {

ReduceGeometry reduce_geometry(const Shape& shape, const std::vector<int>& axes) {
  ReduceGeometry g;
  bool is_reduced[kMaxRank] = {};
  for (int a : axes) is_reduced[a] = true;
  int64_t dims[kMaxRank], strides[kMaxRank];
  bool reduced[kMaxRank];
  int rank = 0;
  int64_t stride = 1;
  for (int d = shape.rank - 1; d >= 0; --d) {  // innermost first
    const int64_t n = shape[d];
    if (is_reduced[d]) g.reduced_elements *= n;
    if (n != 1) {
      if (rank > 0 && reduced[rank - 1] == is_reduced[d]) {
        dims[rank - 1] *= n;
      } else {
        dims[rank] = n;
        strides[rank] = stride;
        reduced[rank++] = is_reduced[d];
      }
    }
    stride *= n;
  }
  const auto append = [](LoopNest* nest, int64_t n, int64_t s) {
    nest->dims[nest->rank] = n;
    nest->strides[nest->rank++] = s;
  };
  if (rank > 0) {
    g.run = dims[0];
    g.columns = !reduced[0];
  }
  for (int d = rank - 1; d >= 1; --d)
    append(reduced[d] ? &g.reduced : &g.kept, dims[d], strides[d]);
  return g;
}

Status read_axes(BindContext& context, const std::vector<int64_t>& attribute, bool has_input,
                 bool noop_with_empty_axes, std::vector<int>* axes) {
  std::vector<int64_t> raw = attribute;
  if (has_input) LEPTON_RETURN_IF_ERROR(require_ints(context, 1, "axes", &raw));
  const int rank = context.input(0).shape.rank;
  axes->clear();
  if (!raw.empty()) return normalize_axes(raw, rank, axes);
  if (!noop_with_empty_axes)
    for (int d = 0; d < rank; ++d) axes->push_back(d);
  return {};
}

Shape reduced_shape(const Shape& shape, const std::vector<int>& axes, bool keepdims) {
  Shape out;
  for (int d = 0; d < shape.rank; ++d) {
    const bool reduced = std::find(axes.begin(), axes.end(), d) != axes.end();
    if (!reduced)
      out.push_back(shape[d]);
    else if (keepdims)
      out.push_back(1);
  }
  return out;
}

}  // namespace lepton
