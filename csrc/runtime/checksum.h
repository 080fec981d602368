// XXH64 (Yann Collet's xxHash, 64 bits): a checksum against damage, not against forgery.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton {

uint64_t xxh64(const void* data, size_t size, uint64_t seed);

}  // namespace lepton
