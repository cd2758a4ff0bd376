// A fast 64-bit hash with good low and high bits, the same on all machines and in all builds: two
// agents with the same endpoints choose the same one for a key. Not for keys that must stay secret.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/base/net_addr.h"

namespace edgemesh::proxy {

constexpr uint64_t mix64(uint64_t x) {  // a bijection: no two inputs share an output
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  x ^= x >> 31;
  return x;
}

inline uint64_t hash64(std::string_view text, uint64_t seed = 0) {
  uint64_t h = mix64(seed + 0x9e3779b97f4a7c15ULL * (text.size() + 1));
  const char* p = text.data();
  size_t left = text.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = std::rotl(h ^ mix64(word + 0x9e3779b97f4a7c15ULL), 27) * 0x9fb21c651e98df25ULL;
  }
  uint64_t rest = 0;
  if (left > 0) std::memcpy(&rest, p, left);
  return mix64(h ^ mix64(rest + (uint64_t{left} << 56)));
}

inline uint64_t hash64(const IpAddr& ip, uint64_t seed = 0) {
  return hash64({reinterpret_cast<const char*>(ip.bytes()), ip.size()}, seed);  // NOLINT
}
inline uint64_t hash64(const SockAddr& addr, uint64_t seed = 0) {
  return hash64(addr.ip, seed + addr.port);
}

// xoroshiro128+: for choices that nobody gains from guessing.
class Random {
 public:
  explicit Random(uint64_t seed) : a_(mix64(seed + 1)), b_(mix64(a_ + 0x9e3779b97f4a7c15ULL)) {}
  uint64_t next() {
    const uint64_t result = a_ + b_;
    const uint64_t x = a_ ^ b_;
    a_ = std::rotl(a_, 24) ^ x ^ (x << 16);
    b_ = std::rotl(x, 37);
    return result;
  }
  // 0 to n - 1; n > 0.
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(((next() >> 32) * uint64_t{n}) >> 32); }
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  // [0, 1)

 private:
  uint64_t a_, b_;
};

}  // namespace edgemesh::proxy
