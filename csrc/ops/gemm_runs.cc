#include "ops/gemm_runs.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "ops/op.h"

namespace lepton {
namespace {

constexpr size_t kQuad = 4;
constexpr size_t kSectionQuads = 256;  // 8 rows of lhs: 8 KB
// Partners that are tried for a quad: more make few runs longer and packing slow.
constexpr size_t kMaxTries = 64;

// One quad of eight columns: its values, and the sums of its positive and negative weights in each
// of the sixteen int16 lanes.
struct Quad {
  std::array<int8_t, kQuadBytes> values = {};
  std::array<uint16_t, 32> load = {};
  uint16_t place = 0;
  uint16_t heaviest = 0;

  void weigh() {
    for (size_t lane = 0; lane < 16; ++lane) {
      const int a = values[2 * lane], b = values[2 * lane + 1];
      load[lane] = static_cast<uint16_t>(std::max(a, 0) + std::max(b, 0));
      load[16 + lane] = static_cast<uint16_t>(std::max(-a, 0) + std::max(-b, 0));
    }
    heaviest = *std::max_element(load.begin(), load.end());
  }
};

// The largest load of a lane; both signs take the smaller of their limits.
int capacity_of(int bound) { return std::numeric_limits<int16_t>::max() / bound; }

bool fits_beside(const std::array<uint16_t, 32>& sum, const Quad& quad, int capacity) {
  int over = 0;
  for (size_t i = 0; i < sum.size(); ++i) over |= capacity - (sum[i] + quad.load[i]);
  return over >= 0;
}

void add_to(std::array<uint16_t, 32>* sum, const Quad& quad) {
  for (size_t i = 0; i < sum->size(); ++i)
    (*sum)[i] = static_cast<uint16_t>((*sum)[i] + quad.load[i]);
}

// Quads [first, last) of p and the eight columns from `column` on, in b's own order; quads that are
// too heavy for a lane in two halves, quads of zeros not at all.
template <typename T>
std::vector<Quad> quads_of(const PackGemmS8& args, size_t column, size_t first, size_t last,
                           int capacity) {
  std::vector<Quad> quads;
  const T* const zero_points = static_cast<const T*>(args.zero_points);
  const size_t columns = std::min(kStripColumns, args.n - column);
  for (size_t place = first; place < last; ++place) {
    Quad quad;
    quad.place = static_cast<uint16_t>(place);
    for (size_t j = 0; j < columns; ++j) {
      const int zero_point =
          zero_points == nullptr ? 0 : zero_points[(column + j) * args.zero_point_stride];
      const T* b = static_cast<const T*>(args.b) + (column + j) * args.column_stride;
      for (size_t p = place * kQuad; p < std::min(place * kQuad + kQuad, args.k); ++p)
        quad.values[j * kQuad + p % kQuad] =
            static_cast<int8_t>(b[p * args.row_stride] - zero_point);
    }
    quad.weigh();
    if (quad.heaviest == 0) continue;
    if (quad.heaviest > capacity) {
      Quad half = quad;
      for (int8_t& value : half.values) value = static_cast<int8_t>(value / 2);
      for (size_t i = 0; i < kQuadBytes; ++i)
        quad.values[i] = static_cast<int8_t>(quad.values[i] - half.values[i]);
      half.weigh();
      quad.weigh();
      quads.push_back(half);
    }
    quads.push_back(quad);
  }
  return quads;
}

struct Runs {
  std::vector<Quad> by_four, by_two, single;
};

// Forms runs: the heaviest quad left takes the heaviest ones that still fit beside it, up to three.
Runs form_runs(std::vector<Quad> quads, int capacity) {
  std::stable_sort(quads.begin(), quads.end(),
                   [](const Quad& a, const Quad& b) { return a.heaviest < b.heaviest; });
  Runs runs;
  std::vector<size_t> partners;
  while (!quads.empty()) {
    const Quad first = quads.back();
    quads.pop_back();
    std::array<uint16_t, 32> sum = first.load;
    partners.clear();
    const size_t tries = std::min(kMaxTries, quads.size());
    for (size_t t = 0; t < tries && partners.size() < 3; ++t) {
      const size_t candidate = quads.size() - 1 - t;
      if (!fits_beside(sum, quads[candidate], capacity)) continue;
      add_to(&sum, quads[candidate]);
      partners.push_back(candidate);
    }
    const size_t taken = partners.size() == 3 ? 3 : std::min<size_t>(partners.size(), 1);
    std::vector<Quad>& run = taken == 3 ? runs.by_four : taken == 1 ? runs.by_two : runs.single;
    run.push_back(first);
    for (size_t i = 0; i < taken; ++i) {  // from the back to the front: places stay valid
      run.push_back(quads[partners[i]]);
      quads.erase(quads.begin() + static_cast<std::ptrdiff_t>(partners[i]));
    }
  }
  return runs;
}

void count(const Runs& runs, size_t dense, RunStatistics* statistics) {
  statistics->in_runs4 += runs.by_four.size();
  statistics->in_runs2 += runs.by_two.size();
  statistics->in_runs1 += runs.single.size();
  statistics->dense += dense;
}

void append(const Runs& runs, bool more, std::vector<std::byte>* out) {
  RunSection section = {};
  section.runs4 = static_cast<uint32_t>(runs.by_four.size() / 4);
  section.runs2 = static_cast<uint32_t>(runs.by_two.size() / 2);
  section.runs1 = static_cast<uint32_t>(runs.single.size());
  section.more = more ? 1 : 0;
  const size_t start = out->size(), quads = section.quads();
  out->resize(start + sizeof section + quads * kQuadBytes +
              round_up(quads * sizeof(uint16_t), kQuadBytes));
  std::byte* value = out->data() + start + sizeof section;
  std::byte* place = value + quads * kQuadBytes;
  std::memcpy(out->data() + start, &section, sizeof section);
  for (const std::vector<Quad>* list : {&runs.by_four, &runs.by_two, &runs.single})
    for (const Quad& quad : *list) {
      std::memcpy(value, quad.values.data(), kQuadBytes);
      std::memcpy(place, &quad.place, sizeof quad.place);
      value += kQuadBytes;
      place += sizeof quad.place;
    }
}

Runs section_runs(const PackGemmS8& args, size_t column, size_t first, size_t last, int bound) {
  const int capacity = capacity_of(bound);
  return form_runs(args.b_signed ? quads_of<int8_t>(args, column, first, last, capacity)
                                 : quads_of<uint8_t>(args, column, first, last, capacity),
                   capacity);
}

template <typename T>
uint32_t sum_of(const PackGemmS8& args, size_t column) {
  const T* const zero_points = static_cast<const T*>(args.zero_points);
  const T* const b = static_cast<const T*>(args.b) + column * args.column_stride;
  const int zero_point = zero_points == nullptr ? 0 : zero_points[column * args.zero_point_stride];
  uint32_t sum = 0;
  for (size_t p = 0; p < args.k; ++p)
    sum += static_cast<uint32_t>(b[p * args.row_stride] - zero_point);
  return sum;
}

int32_t column_sum(const PackGemmS8& args, size_t column) {
  return static_cast<int32_t>(args.b_signed ? sum_of<int8_t>(args, column)
                                            : sum_of<uint8_t>(args, column));
}

template <typename T>
bool column_pairs_fit(const PackGemmS8& args, size_t column, int capacity) {
  const T* const zero_points = static_cast<const T*>(args.zero_points);
  const T* const b = static_cast<const T*>(args.b) + column * args.column_stride;
  const int zero_point = zero_points == nullptr ? 0 : zero_points[column * args.zero_point_stride];
  for (size_t p = 0; p < args.k; p += 2) {
    const int first = b[p * args.row_stride] - zero_point;
    const int second = p + 1 < args.k ? b[(p + 1) * args.row_stride] - zero_point : 0;
    if (std::max(first, 0) + std::max(second, 0) > capacity) return false;
    if (std::max(-first, 0) + std::max(-second, 0) > capacity) return false;
  }
  return true;
}

// Even sections of at most kSectionQuads.
size_t section_length(size_t quads) {
  return quads == 0 ? 1 : ceil_div(quads, ceil_div(quads, kSectionQuads));
}

// Reads the section at `at`; its bytes, or 0 when it is longer than `room` or a place is beyond k.
size_t section_bytes(const std::byte* at, size_t room, size_t quads_of_k, RunSection* section) {
  if (room < sizeof *section) return 0;
  std::memcpy(section, at, sizeof *section);
  const size_t quads = section->quads();
  if (quads > room / kQuadBytes) return 0;
  const size_t places_at = sizeof *section + quads * kQuadBytes;
  const size_t end = places_at + round_up(quads * sizeof(uint16_t), kQuadBytes);
  if (end > room) return 0;
  for (size_t i = 0; i < quads; ++i) {
    uint16_t place;
    std::memcpy(&place, at + places_at + i * sizeof place, sizeof place);
    if (place >= quads_of_k) return 0;
  }
  return end;
}

}  // namespace

double RunStatistics::cost() const {
  // A run of r: r products, r − 1 sums, widening and accumulation.
  const double instructions = static_cast<double>(in_runs4) * 9 / 4 +
                              static_cast<double>(in_runs2) * 5 / 2 +
                              static_cast<double>(in_runs1) * 3;
  return dense == 0 ? 0 : instructions / static_cast<double>(dense);
}

bool pairs_fit(const PackGemmS8& args, int bound) {
  const int capacity = capacity_of(bound);
  for (size_t j = 0; j < args.n; ++j)
    if (!(args.b_signed ? column_pairs_fit<int8_t>(args, j, capacity)
                        : column_pairs_fit<uint8_t>(args, j, capacity)))
      return false;
  return true;
}

void PackedRuns::add(const PackGemmS8& matrix) {
  for (size_t panel = 0; panel < gemm_panels(kernel_, matrix.n); ++panel) add_panel(matrix, panel);
}

void PackedRuns::add_panel(const PackGemmS8& matrix, size_t panel) {
  const size_t begin = panel * static_cast<size_t>(kernel_.nr);
  const size_t end = std::min(begin + static_cast<size_t>(kernel_.nr), matrix.n);
  const size_t quads = ceil_div(matrix.k, kQuad), length = section_length(quads);
  std::vector<std::byte> packed(round_up(end - begin, kStripColumns) * sizeof(int32_t));
  for (size_t j = begin; j < end; ++j) {
    const int32_t sum = column_sum(matrix, j);
    std::memcpy(packed.data() + (j - begin) * sizeof sum, &sum, sizeof sum);
  }
  for (size_t column = begin; column < end; column += kStripColumns) {
    size_t first = 0;
    do {
      const size_t last = std::min(first + length, quads);
      append(section_runs(matrix, column, first, last, bound_), last < quads, &packed);
      first = last;
    } while (first < quads);
  }
  stride_ = std::max(stride_, round_up(packed.size(), kCacheLine));
  panels_.push_back(std::move(packed));
}

void PackedRuns::store(size_t stride, std::byte* to) const {
  for (const std::vector<std::byte>& panel : panels_) {
    std::memcpy(to, panel.data(), panel.size());
    std::fill(to + panel.size(), to + stride, std::byte{0});
    to += stride;
  }
}

RunStatistics sample_gemm_runs(const PackGemmS8& args, int bound) {
  constexpr size_t kSamples = 16;
  RunStatistics statistics;
  const size_t quads = ceil_div(args.k, kQuad), length = section_length(quads);
  const size_t sections = ceil_div(quads, length) * ceil_div(args.n, kStripColumns);
  for (size_t i = 0; i < std::min(kSamples, sections); ++i) {
    const size_t section = i * sections / std::min(kSamples, sections);
    const size_t strips = ceil_div(args.n, kStripColumns);
    const size_t first = section / strips * length, last = std::min(first + length, quads);
    const Runs runs = section_runs(args, section % strips * kStripColumns, first, last, bound);
    count(runs, last - first, &statistics);
  }
  return statistics;
}

Status check_gemm_runs(const std::byte* strips, size_t bytes, size_t width, size_t k,
                       RunStatistics* statistics) {
  const size_t quads_of_k = ceil_div(k, kQuad);
  size_t at = 0;
  for (size_t strip = 0; strip < width; strip += kStripColumns) {
    if (statistics != nullptr) statistics->dense += quads_of_k;
    RunSection section;
    do {
      const size_t length = section_bytes(strips + at, bytes - at, quads_of_k, &section);
      if (length == 0) return invalid_model("packed weights are damaged: a run leads outside");
      at += length;
      if (statistics == nullptr) continue;
      statistics->in_runs4 += size_t{4} * section.runs4;
      statistics->in_runs2 += size_t{2} * section.runs2;
      statistics->in_runs1 += section.runs1;
    } while (section.more != 0);
  }
  return {};
}

}  // namespace lepton
