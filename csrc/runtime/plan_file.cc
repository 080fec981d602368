#include "runtime/plan_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime/checksum.h"
#include "runtime/memory.h"

namespace lepton {
namespace {

constexpr size_t kChecked = offsetof(PlanFileHeader, version);  // where the checksum begins
constexpr size_t kSeeded = offsetof(PlanFileHeader, checksum);
constexpr uint64_t kBlobAlignment = 64;
#ifdef MAP_POPULATE
constexpr int kMapFlags = MAP_PRIVATE | MAP_POPULATE;  // the checksum reads all of it at once
#else
constexpr int kMapFlags = MAP_PRIVATE;
#endif

static_assert(sizeof(PlanFileHeader) == 176 && sizeof(PlanFileHeader) % 8 == 0,
              "the header's layout is part of the format");

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "plans are used as they lie in the file, which is little-endian"
#endif

struct BlobEntry {
  uint64_t offset, bytes;
};

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Status system_error(const std::string& doing, const std::string& path) {
  return invalid_input("cannot " + doing + " " + path + ": " + std::strerror(errno));
}

Status broken(const std::string& what) { return invalid_model("broken plan: " + what); }

uint64_t checksum_of(const std::byte* file, size_t size) {
  return xxh64(file + kChecked, size - kChecked, xxh64(file, kSeeded, 0));
}

// [offset, offset + bytes) as a range of the file, aligned.
bool is_range(const PlanFileHeader& h, uint64_t offset, uint64_t bytes, uint64_t alignment) {
  return offset % alignment == 0 && offset >= sizeof(PlanFileHeader) && offset <= h.file_bytes &&
         bytes <= h.file_bytes - offset;
}

std::string_view text_of(const char* field, size_t size) { return {field, strnlen(field, size)}; }

Status check_identity(const PlanFileHeader& h) {
  const std::string_view version = text_of(h.version, sizeof(h.version));
  if (version != library_version())
    return unsupported("the plan was made by lepton_rt " + std::string(version) + ", this is " +
                       library_version() + ": compile the model again");
  if (text_of(h.kernels, sizeof(h.kernels)) != std::string_view(kernel_digest, sizeof(h.kernels)))
    return unsupported("the plan was made by a build with other kernels: compile the model again");
  return {};
}

Status check_header(const std::byte* file, size_t size, PlanFileHeader* header) {
  if (size < sizeof(kPlanMagic) || std::memcmp(file, kPlanMagic, sizeof(kPlanMagic)) != 0)
    return invalid_model("this is not a .plan file");
  if (size < sizeof(PlanFileHeader)) return broken("truncated header");
  std::memcpy(header, file, sizeof(PlanFileHeader));
  if (header->format != kPlanFormat)
    return unsupported("the plan has format " + std::to_string(header->format) +
                       ", this version reads " + std::to_string(kPlanFormat) +
                       ": compile the model again");
  if (header->header_bytes != sizeof(PlanFileHeader)) return broken("header size");
  if (header->file_bytes != size) return broken("the file was truncated or extended");
  if (header->checksum != checksum_of(file, size)) return broken("the checksum is wrong");
  return check_identity(*header);
}

Status read_table(const std::byte* file, const PlanFileHeader& h, std::vector<Blob>* blobs) {
  if (h.blobs > h.file_bytes / sizeof(BlobEntry) ||
      !is_range(h, h.table_offset, h.blobs * sizeof(BlobEntry), 8))
    return broken("blob table");
  blobs->reserve(h.blobs);
  for (uint64_t i = 0; i < h.blobs; ++i) {
    BlobEntry entry;
    std::memcpy(&entry, file + h.table_offset + i * sizeof(BlobEntry), sizeof(entry));
    if (!is_range(h, entry.offset, entry.bytes, kBlobAlignment)) return broken("blob range");
    blobs->push_back({file + entry.offset, entry.bytes});
  }
  return {};
}

Status check_isa(const Plan& plan) {
  Isa cap;
  LEPTON_RETURN_IF_ERROR(max_isa(&cap));
  if (is_within(plan.isa, cap)) return {};
  return unsupported(std::string("the plan was made for ") + name_of(plan.isa) +
                     ", LEPTON_MAX_ISA allows " + name_of(cap));
}

// `storage` owns the file's bytes.
Status parse_file(std::shared_ptr<const void> storage, size_t size, std::unique_ptr<Plan>* out) {
  const auto* file = static_cast<const std::byte*>(storage.get());
  PlanFileHeader h;
  LEPTON_RETURN_IF_ERROR(check_header(file, size, &h));
  if (!is_range(h, h.meta_offset, h.meta_bytes, 8)) return broken("meta range");
  if (!is_range(h, h.annotations_offset, h.annotations_bytes, 1))
    return broken("annotations range");
  std::vector<Blob> blobs;
  LEPTON_RETURN_IF_ERROR(read_table(file, h, &blobs));
  std::unique_ptr<Plan> plan;
  LEPTON_RETURN_IF_ERROR(Plan::parse(file + h.meta_offset, h.meta_bytes, blobs, &plan));
  LEPTON_RETURN_IF_ERROR(check_isa(*plan));
  plan->annotations = {reinterpret_cast<const char*>(file) + h.annotations_offset,
                       static_cast<size_t>(h.annotations_bytes)};
  plan->storage = std::move(storage);
  *out = std::move(plan);
  return {};
}

// Where everything goes, and the header that says so.
struct Layout {
  PlanFileHeader header = {};
  std::vector<BlobEntry> table;

  Layout(const Plan& plan, size_t annotations_bytes) {
    PlanFileHeader& h = header;
    std::memcpy(h.magic, kPlanMagic, sizeof(h.magic));
    h.format = kPlanFormat;
    h.header_bytes = sizeof(PlanFileHeader);
    std::strncpy(h.version, library_version(), sizeof(h.version) - 1);
    std::memcpy(h.kernels, kernel_digest, sizeof(h.kernels));
    h.meta_offset = sizeof(PlanFileHeader);
    h.meta_bytes = plan.meta.size;
    h.annotations_offset = h.meta_offset + h.meta_bytes;
    h.annotations_bytes = annotations_bytes;
    h.table_offset = round_up(h.annotations_offset + annotations_bytes, 8);
    h.blobs = plan.blobs.size();
    uint64_t at = h.table_offset + h.blobs * sizeof(BlobEntry);
    for (const Blob& blob : plan.blobs) {
      at = round_up(at, kBlobAlignment);
      table.push_back({at, blob.size});
      at += blob.size;
    }
    h.file_bytes = at;
  }
};

void fill(const Plan& plan, std::string_view annotations, Layout layout, std::byte* file) {
  PlanFileHeader& h = layout.header;
  const auto copy = [file](uint64_t offset, const void* data, size_t bytes) {
    if (bytes != 0) std::memcpy(file + offset, data, bytes);
  };
  copy(h.meta_offset, plan.meta.data, plan.meta.size);
  copy(h.annotations_offset, annotations.data(), annotations.size());
  copy(h.table_offset, layout.table.data(), layout.table.size() * sizeof(BlobEntry));
  for (size_t i = 0; i < plan.blobs.size(); ++i)
    copy(layout.table[i].offset, plan.blobs[i].data, plan.blobs[i].size);
  copy(0, &h, sizeof(h));
  h.checksum = checksum_of(file, h.file_bytes);
  copy(0, &h, sizeof(h));
}

// A new file in the same folder, with the permissions that the umask leaves (mkstemp's are
// narrower).
int open_beside(const std::string& path, std::string* name) {
  static std::atomic<unsigned> serial{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    *name = path + "." + std::to_string(getpid()) + "." + std::to_string(serial++) + ".tmp";
    const int fd = ::open(name->c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
  return -1;
}

// Sizes the file before it is mapped, so that a full disk is an error and no SIGBUS.
Status allocate(int fd, uint64_t bytes, const std::string& path) {
#ifdef __linux__
  errno = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  const bool done = errno == 0;
#else
  const bool done = ftruncate(fd, static_cast<off_t>(bytes)) == 0;
#endif
  return done ? Status() : system_error("write", path);
}

Status write_file(int fd, const std::string& path, const Plan& plan, std::string_view annotations) {
  const Layout layout(plan, annotations.size());
  const size_t bytes = layout.header.file_bytes;
  LEPTON_RETURN_IF_ERROR(allocate(fd, bytes, path));
  void* file = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (file == MAP_FAILED) return system_error("write", path);
  fill(plan, annotations, layout, static_cast<std::byte*>(file));
  munmap(file, bytes);
  return {};
}

Status check_no_host_steps(const Plan& plan) {
  for (const PlanStep& step : plan.steps) {
    if (step.op == kHostStep)
      return unsupported("a plan with host steps cannot be saved: \"" + std::string(step.name) +
                         "\" runs through Python");
    for (const PlanBody& body : step.bodies)
      LEPTON_RETURN_IF_ERROR(check_no_host_steps(*body.plan));
  }
  return {};
}

}  // namespace

const char* library_version() { return LEPTON_VERSION; }

Status open_plan(const std::string& path, std::unique_ptr<Plan>* plan) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info;
  if (file.get() < 0 || fstat(file.get(), &info) != 0) return system_error("open", path);
  if (!S_ISREG(info.st_mode) || info.st_size <= 0) return invalid_model("this is not a .plan file");
  const auto size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, kMapFlags, file.get(), 0);
  if (data == MAP_FAILED) return system_error("map", path);
  return parse_file({data, [size](void* p) { munmap(p, size); }}, size, plan);
}

Status read_plan(std::string_view bytes, std::unique_ptr<Plan>* plan) {
  auto buffer = std::make_shared<Buffer>();
  LEPTON_RETURN_IF_ERROR(buffer->reserve(bytes.size() + 1));
  if (!bytes.empty()) std::memcpy(buffer->data(), bytes.data(), bytes.size());
  const void* data = buffer->data();
  return parse_file(std::shared_ptr<const void>(std::move(buffer), data), bytes.size(), plan);
}

Status save_plan(const std::string& path, const Plan& plan, std::string_view annotations) {
  LEPTON_RETURN_IF_ERROR(check_no_host_steps(plan));
  std::string temporary;
  const FileDescriptor file(open_beside(path, &temporary));
  if (file.get() < 0) return system_error("write", path);
  Status status = write_file(file.get(), path, plan, annotations);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0)
    status = system_error("write", path);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace lepton
