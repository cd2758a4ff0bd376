// DatagramSide: datagrams of a stream beside its bytes (RFC 9297), where what carries it has them. They
// may be lost and overtake each other and the bytes, and wait for none of them.
// Threads: the stream's loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace edgemesh::io {

class DatagramSide {
 public:
  static constexpr size_t kMaxBytes = 1500;  // none is larger

  virtual ~DatagramSide() = default;
  // What may be sent now; 0: none, for the peer takes none or has not answered yet. It changes with
  // the path.
  virtual size_t max_datagram() const = 0;
  // Whole or not at all. False: no room, or too large.
  virtual bool send_datagram(std::span<const uint8_t> data) = 0;
  // The oldest that came, into kMaxBytes. Null: on_readable() is called when there is one.
  virtual std::optional<size_t> read_datagram(std::span<uint8_t> into) = 0;
  // How many, since the last call, were taken by neither side: no room for those that came, or the path
  // has become too narrow for those that waited.
  virtual uint64_t take_lost() = 0;
};

}  // namespace edgemesh::io
