// A peer of the HTTP/2 codecs that sends hand-made frames and reads what comes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/memory_stream.h"

namespace edgemesh::proxy::h2raw {

enum Type : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
inline constexpr uint8_t kEndStream = 1;
inline constexpr uint8_t kAck = 1;
inline constexpr uint8_t kEndHeaders = 4;
// Error codes.
inline constexpr uint32_t kProtocolError = 1;
inline constexpr uint32_t kStreamClosed = 5;
inline constexpr uint32_t kEnhanceYourCalm = 11;

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// :method GET, :scheme http, :path /, :authority h.
inline constexpr std::string_view kGet = "\x82\x86\x84\x01\x01h";

inline std::string number(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

inline std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string out = number(static_cast<uint32_t>(payload.size())).substr(1);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  out += number(stream);
  out += payload;
  return out;
}

// A field that is not to be indexed; the name's size below 127, the value's below 127 + 16384.
inline std::string field(std::string_view name, std::string_view value) {
  std::string out(1, '\0');
  out += static_cast<char>(name.size());
  out += name;
  if (value.size() < 127) {
    out += static_cast<char>(value.size());
  } else {
    size_t rest = value.size() - 127;
    out += '\x7f';
    for (; rest >= 128; rest /= 128) out += static_cast<char>(rest % 128 + 128);
    out += static_cast<char>(rest);
  }
  out += value;
  return out;
}

struct Frame {
  uint8_t type = 0;
  uint8_t flags = 0;
  uint32_t stream = 0;
  std::string payload;
  uint32_t at(size_t offset) const {
    uint32_t value = 0;
    for (size_t i = 0; i < 4 && offset + i < payload.size(); ++i)
      value = value << 8 | static_cast<uint8_t>(payload[offset + i]);
    return value;
  }
};

class Peer {
 public:
  explicit Peer(std::unique_ptr<io::Stream> stream) : wire(std::move(stream)) {}

  // The beginning of a client: preface, SETTINGS, and the answer to the server's.
  void hello() { wire.send(std::string(kPreface) + frame(kSettings, 0, 0, "") + frame(kSettings, kAck, 0, "")); }
  void send(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
    wire.send(frame(type, flags, stream, payload));
  }
  std::vector<Frame> frames() const {
    std::vector<Frame> out;
    std::string_view rest = wire.received;
    while (rest.size() >= 9) {
      auto byte = [&rest](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(rest[i])); };
      size_t n = byte(0) << 16 | byte(1) << 8 | byte(2);
      if (rest.size() < 9 + n) break;
      Frame f;
      f.type = static_cast<uint8_t>(byte(3));
      f.flags = static_cast<uint8_t>(byte(4));
      f.stream = byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8);
      f.payload = rest.substr(9, n);
      out.push_back(std::move(f));
      rest.remove_prefix(9 + n);
    }
    return out;
  }
  // The error code of the last GOAWAY.
  std::optional<uint32_t> goaway() const {
    std::optional<uint32_t> code;
    for (const Frame& f : frames())
      if (f.type == kGoaway) code = f.at(4);
    return code;
  }
  std::optional<uint32_t> reset_of(uint32_t stream) const {
    std::optional<uint32_t> code;
    for (const Frame& f : frames())
      if (f.type == kRstStream && f.stream == stream) code = f.at(0);
    return code;
  }
  size_t count(uint8_t type) const {
    size_t n = 0;
    for (const Frame& f : frames()) n += f.type == type;
    return n;
  }

  test::Collector wire;
};

}  // namespace edgemesh::proxy::h2raw
