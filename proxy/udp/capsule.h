// Datagrams in a byte stream: DATAGRAM capsules (RFC 9297 3.5) of CONNECT-UDP (RFC 9298 5), context
// 0. Capsules of other types and of other contexts are passed over. No I/O.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::proxy {

inline constexpr size_t kMaxUdpPayload = 65'527;  // over IPv6
inline constexpr size_t kCapsuleOverhead = 6;     // at most: type, length, context

// Writes what goes before `size` bytes of payload; at most kCapsuleOverhead bytes. Returns how
// many.
size_t put_capsule_header(size_t size, uint8_t* out);

class CapsuleReader {
 public:
  using Sink = std::function<void(std::span<const uint8_t> payload)>;
  // What is given to `sink` is valid until the next feed(), as long as `data` is. Nothing of a
  // capsule that is passed over is kept; of a datagram, at most its size. After an error the stream
  // must be ended.
  Result<> feed(std::span<const uint8_t> data, const Sink& sink);
  // False: in the middle of a capsule, where the stream may not end.
  bool may_end() const { return held_.empty() && skip_ == 0; }

 private:
  struct Head {
    size_t size = 0;  // of type and length; 0: not complete
    bool datagram = false;
    uint64_t length = 0;
  };
  static Result<Head> read_head(std::span<const uint8_t> data);
  static Result<> give(std::span<const uint8_t> value, const Sink& sink);
  Result<> complete_held(std::span<const uint8_t>* data, const Sink& sink);

  std::vector<uint8_t> held_;  // a capsule that came in parts, from its first byte
  std::vector<uint8_t> done_;  // the one before, while its payload is used
  uint64_t skip_ = 0;          // bytes of a capsule that is passed over
};

}  // namespace edgemesh::proxy
