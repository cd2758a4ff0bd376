// The part of HTTP/3 (RFC 9114) that CONNECT streams need: frames, and field sections in QPACK (RFC
// 9204) without the dynamic table, so that no header waits for another stream. No I/O.
//
//   request stream:  HEADERS(:method CONNECT, :authority)  DATA*       end of stream = half-close
//                    or, RFC 9220: HEADERS(:method CONNECT, :protocol connect-udp, :path ...)
//   response:        HEADERS(:status 200)  DATA*    or     HEADERS(:status 403, x-edgemesh-reason)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::p2p {

// Application error codes of RFC 9114 (and 9297) that we send.
enum H3Error : uint64_t {
  kH3DatagramError = 0x33,  // RFC 9297
  kH3NoError = 0x100,
  kH3InternalError = 0x102,
  kH3StreamCreationError = 0x103,
  kH3FrameUnexpected = 0x105,
  kH3FrameError = 0x106,
  kH3ExcessiveLoad = 0x107,
  kH3SettingsError = 0x109,
  kH3MissingSettings = 0x10a,
  kH3RequestCancelled = 0x10c,
  kH3MessageError = 0x10e,
  kH3ConnectError = 0x10f,
};

using H3Fields = std::vector<std::pair<std::string, std::string>>;

// Type of a control stream and its SETTINGS frame. `datagrams`: SETTINGS_H3_DATAGRAM of RFC 9297.
std::string h3_control_preface(bool datagrams);
// A whole HEADERS frame.
Result<std::string> h3_encode_headers(const H3Fields& fields);
// Header of a DATA frame of `payload` bytes, written to `out` (at least 9 bytes). Returns its length.
size_t h3_data_header(uint64_t payload, uint8_t* out);

// Reads one request stream. Strict: a frame that may not come there is an error.
class H3StreamReader {
 public:
  static constexpr size_t kMaxFieldSection = 16 * 1024;

  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void on_h3_headers(H3Fields fields) = 0;  // the first section; trailers are dropped
    virtual void on_h3_data(std::span<const uint8_t> data) = 0;
  };

  // All of `data` is consumed. After an error the stream must be ended.
  Result<> feed(std::span<const uint8_t> data, Sink& sink);
  // False: the stream may not end here (inside a frame, or before the headers).
  bool may_end() const { return state_ == State::kType && prefix_.empty() && got_headers_; }

 private:
  enum class State : uint8_t { kType, kPayload };
  Result<> on_header(uint64_t type, uint64_t length);
  Result<> end_section(Sink& sink);

  State state_ = State::kType;
  bool got_headers_ = false;
  bool got_trailers_ = false;
  uint64_t type_ = 0;
  uint64_t left_ = 0;      // payload bytes still to come
  std::string prefix_;     // of a frame header that came in parts, at most 16 bytes
  std::string section_;    // of a HEADERS frame
};

// Reads a unidirectional stream of the peer: the settings of its control stream. Streams of other types,
// and what follows the settings, are passed over: nothing in them changes what we do.
class H3UniReader {
 public:
  struct Settings {
    bool datagrams = false;
  };
  // After an error the connection must be closed with error_code().
  Result<> feed(std::span<const uint8_t> data);
  bool control() const { return state_ != State::kStreamType && state_ != State::kOther; }
  const std::optional<Settings>& settings() const { return settings_; }
  H3Error error_code() const { return error_code_; }

 private:
  static constexpr size_t kMaxSettings = 1024;  // bytes
  enum class State : uint8_t { kStreamType, kOther, kFrame, kSettings, kSkip };
  Result<> on_frame(uint64_t type, uint64_t length);
  Result<> read_settings();
  Result<> error(H3Error code, std::string_view what);
  bool take_head(std::span<const uint8_t>* data, size_t numbers, uint64_t* out);

  State state_ = State::kStreamType;
  H3Error error_code_ = kH3NoError;
  uint64_t left_ = 0;   // payload bytes still to come
  std::string held_;    // a head that came in parts, or the settings
  std::optional<Settings> settings_;
};

}  // namespace edgemesh::p2p
