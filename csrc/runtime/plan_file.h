// The `.plan` file: a plan compiled for one target, used where the file is mapped.
//
// Little-endian; every offset counts from the start of the file. In order:
//   header (PlanFileHeader), meta (layout in plan.h), annotations (JSON that Python keeps with the
//   plan; the runtime does not read it), blob table (u64 offset, u64 bytes each), blobs (each
//   64-byte aligned, zeros between)
// A plan is refused unless it was made by this version of the library, by a build with the same
// kernel digest (what its packed operands mean), for an instruction set that this machine has and
// LEPTON_MAX_ISA allows. The checksum covers the whole file, the proofs packed into it included: it
// finds damage. A file made to deceive has a right checksum, so nothing else is believed either:
// sizes, ids, dtypes and shapes are checked here, by Plan::parse and by the operators' factories.
//
// A file that is open must not be changed in place; save_plan() replaces it by renaming.
#pragma once

#include <string>
#include <string_view>

#include "runtime/plan.h"

namespace lepton {

constexpr char kPlanMagic[8] = {'\x89', 'L', 'E', 'P', 'T', 'P', 'L', 'N'};
constexpr uint32_t kPlanFormat = 1;

struct PlanFileHeader {
  char magic[8];
  uint32_t format;  // kPlanFormat; anything else has another header
  uint32_t header_bytes;
  uint64_t file_bytes;
  uint64_t checksum;  // xxh64 of all bytes after this field, its seed the xxh64 of those before
  char version[32];   // of the library, padded with zeros
  char kernels[64];   // kernel_digest
  uint64_t meta_offset, meta_bytes;
  uint64_t annotations_offset, annotations_bytes;
  uint64_t table_offset, blobs;
};

// SHA-256, in hexadecimal, of the kernel lists, their contracts and packers (cmake/KernelDigest).
extern const char* const kernel_digest;
const char* library_version();

// Maps and validates a file.
Status open_plan(const std::string& path, std::unique_ptr<Plan>* plan);
// The same of a file's bytes, which are copied.
Status read_plan(std::string_view bytes, std::unique_ptr<Plan>* plan);
// Writes plan and annotations to a file beside `path`, then renames it. Refuses host steps.
Status save_plan(const std::string& path, const Plan& plan, std::string_view annotations);

}  // namespace lepton
