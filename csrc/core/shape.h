// Shape: up to kMaxRank dimensions, stored inline so that binding allocates nothing for them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

namespace lepton {

constexpr int kMaxRank = 8;
// No tensor may hold more elements than this: keeps every byte count and offset inside int64.
constexpr int64_t kMaxElements = int64_t{1} << 40;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> d) {
    for (int64_t v : d) dims[rank++] = v;
  }
  static Shape of(const int64_t* d, int n) {
    Shape s;
    for (; s.rank < n; ++s.rank) s.dims[s.rank] = d[s.rank];
    return s;
  }

  int64_t operator[](int i) const { return dims[i]; }
  int64_t& operator[](int i) { return dims[i]; }
  const int64_t* begin() const { return dims; }
  const int64_t* end() const { return dims + rank; }
  void push_back(int64_t d) { dims[rank++] = d; }

  // Product of dims[first, last); 1 when empty.
  int64_t product(int first, int last) const {
    int64_t n = 1;
    for (int i = first; i < last; ++i) n *= dims[i];
    return n;
  }
  int64_t elements() const { return product(0, rank); }

  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }
  bool operator!=(const Shape& o) const { return !(*this == o); }

  // "[1, 3, 224, 224]"
  std::string str() const {
    std::string s = "[";
    for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
    return s + "]";
  }
};

// False when a dimension is negative or the element count passes kMaxElements.
inline bool is_valid(const Shape& s) {
  int64_t n = 1;
  for (int64_t d : s) {
    if (d < 0) return false;
    if (d != 0 && n > kMaxElements / d) return false;
    n *= d;
  }
  return true;
}

}  // namespace lepton
