// Variable-length integers of QUIC (RFC 9000 16), as HTTP/3 frames and capsules have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace edgemesh::p2p {

// At most 8 bytes, below 2^62. Returns how many.
inline size_t put_varint(uint64_t value, uint8_t* out) {
  int log = value < 64 ? 0 : value < 16384 ? 1 : value < (1ULL << 30) ? 2 : 3;
  size_t size = size_t{1} << log;
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(value >> (8 * (size - 1 - i)));
  out[0] |= static_cast<uint8_t>(log << 6);
  return size;
}

// Bytes used; 0: not complete.
inline size_t get_varint(std::string_view in, uint64_t* value) {
  if (in.empty()) return 0;
  auto first = static_cast<uint8_t>(in[0]);
  size_t size = size_t{1} << (first >> 6);
  if (in.size() < size) return 0;
  uint64_t v = first & 0x3f;
  for (size_t i = 1; i < size; ++i) v = v << 8 | static_cast<uint8_t>(in[i]);
  *value = v;
  return size;
}

}  // namespace edgemesh::p2p
