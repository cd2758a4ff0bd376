// Private to the quic_*.cc files: datagrams of a stream that wait (RFC 9221, RFC 9297).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "core/io/datagram_side.h"
#include "p2p/quic_buffers.h"

namespace edgemesh::p2p {

// Datagrams of at most io::DatagramSide::kMaxBytes, the oldest first, each with its size before it.
class DatagramQueue {
 public:
  // What one takes of a limit.
  static constexpr size_t cost(size_t size) { return size + kSizeBytes; }
  void push(std::span<const uint8_t> data) {
    const uint8_t size[kSizeBytes] = {static_cast<uint8_t>(data.size() >> 8),
                                      static_cast<uint8_t>(data.size())};
    bytes_.append(size);
    bytes_.append(data);
  }
  // Into at least kMaxBytes.
  std::optional<size_t> pop(std::span<uint8_t> into) {
    uint8_t size[kSizeBytes];
    if (bytes_.size() == 0) return std::nullopt;
    read_all(size);
    const size_t n = size_t{size[0]} << 8 | size[1];
    read_all(into.first(n));
    return n;
  }
  bool empty() const { return bytes_.size() == 0; }
  size_t bytes() const { return bytes_.size(); }
  void clear() { bytes_.clear(); }

 private:
  static constexpr size_t kSizeBytes = 2;
  void read_all(std::span<uint8_t> into) {
    while (!into.empty()) into = into.subspan(bytes_.read(into));
  }
  RecvBuffer bytes_;
};

// Of one CONNECT-UDP stream.
struct StreamDatagrams {
  DatagramQueue out, in;
  uint64_t lost = 0;    // not told yet, see io::DatagramSide::take_lost
  bool listed = false;  // in the connection's list of those that want to send
};

}  // namespace edgemesh::p2p
