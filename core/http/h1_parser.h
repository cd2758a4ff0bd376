// HTTP/1 parsing without I/O and without allocation (RFC 9112). For the small server and client
// here and for the L7 proxy.
//
// The caller keeps received bytes in one buffer of its own and shows them to the parser from the
// first unconsumed byte on; what the parser returns are views into that buffer, valid until the
// caller changes it. Feeding byte by byte costs linear time.
//
// Strict where leniency has let two parsers disagree about where a message ends: a bare CR or LF,
// folded lines, space before the colon, repeated or listed Content-Length, Content-Length beside
// Transfer-Encoding, any coding but a single "chunked", chunk sizes that are not plain hex, CTLs in
// values, no or several Host fields: all are errors.
// Threads: none; objects are plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace edgemesh::http {

struct FieldView {
  std::string_view name;
  std::string_view value;
};

struct H1Limits {
  uint32_t max_start_line = 8 << 10;  // without its CRLF
  uint32_t max_head = 64 << 10;       // start line, fields and the empty line
  uint32_t max_fields = 100;          // also bounded by the storage given
  uint32_t max_chunk_line = 256;      // chunk size and extensions
  uint32_t max_trailer = 8 << 10;
};

// What is wrong, as text for a log line or an answer, and the status a server answers with.
struct H1Error {
  int status = 0;
  const char* text = "";
};

enum class BodyKind : uint8_t {
  kNone,
  kLength,
  kChunked,
  kUntilClose,  // responses only
};

struct H1Head {
  std::string_view method;  // requests
  std::string_view target;
  int status = 0;  // responses
  std::string_view reason;
  int minor_version = 1;  // HTTP/1.0 or HTTP/1.1
  std::span<const FieldView> fields;

  BodyKind body = BodyKind::kNone;
  uint64_t content_length = 0;  // with kLength; also of a HEAD answer
  bool has_content_length = false;
  bool keep_alive = true;        // by version and Connection
  bool expect_continue = false;  // Expect: 100-continue of an HTTP/1.1 request
  bool upgrade = false;          // Connection lists "upgrade"
  std::string_view upgrade_protocol;
  std::string_view host;

  std::string_view get(std::string_view name) const;  // first value; empty when absent
};

enum class H1Status : uint8_t { kIncomplete, kComplete, kError };

class H1HeadParser {
 public:
  enum Kind : uint8_t { kRequest, kResponse };
  // `storage` holds the fields of one head; it is borrowed and may be shared by parsers that are
  // not used at the same time.
  H1HeadParser(Kind kind, std::span<FieldView> storage, const H1Limits& limits = {});

  // `buffer` begins with the first byte of the message (empty lines before a request are skipped,
  // as RFC 9112 2.2 asks). On kComplete the head took *consumed bytes. Call reset() before the next
  // head. For an incomplete head the same bytes must be shown again, with more behind them.
  H1Status parse(std::string_view buffer, H1Head* head, size_t* consumed);
  // Responses: the method of the request decides about the body. Before parse().
  void answers(std::string_view request_method);
  void reset();
  const H1Error& error() const { return error_; }

 private:
  H1Status fail(int status, const char* text);
  bool find_end(std::string_view buffer, size_t* end);
  bool parse_request_line(std::string_view line, H1Head* head);
  bool parse_status_line(std::string_view line, H1Head* head);
  bool parse_fields(std::string_view lines, H1Head* head);
  bool note_field(const FieldView& field, H1Head* head);
  bool note_content_length(std::string_view value, H1Head* head);
  bool note_transfer_encoding(std::string_view value);
  bool note_host(std::string_view value, H1Head* head);
  bool decide_request_body(H1Head* head);
  bool decide_response_body(H1Head* head);

  std::span<FieldView> storage_;
  H1Limits limits_;
  H1Error error_;
  Kind kind_;
  bool answers_head_ = false;
  bool answers_connect_ = false;
  // Where the search for the end of the head goes on.
  uint32_t skipped_ = 0;  // empty lines before the start line
  uint32_t scanned_ = 0;
  uint32_t line_start_ = 0;
  uint32_t lines_ = 0;
  // Findings in the head at hand.
  bool chunked_ = false;
  bool close_ = false;
  bool keep_alive_ = false;
  bool host_seen_ = false;
  bool expect_ = false;
};

// Takes a body apart. Slices of the caller's buffer come back, nothing is copied.
class H1BodyDecoder {
 public:
  enum Event : uint8_t {
    kNeedMore,  // show the unconsumed bytes again, with more behind them
    kData,      // *data is a part of the body (never empty)
    kEnd,       // the body is whole; further bytes belong to the next message
    kError,
  };
  // `storage` takes the trailer fields; borrowed, as above.
  H1BodyDecoder(BodyKind kind, uint64_t length, std::span<FieldView> storage,
                const H1Limits& limits = {});
  H1BodyDecoder() : H1BodyDecoder(BodyKind::kNone, 0, {}) {}

  // `*consumed` bytes are to be dropped from the front of `in` (after `*data` was used), whatever
  // the event.
  Event next(std::string_view in, size_t* consumed, std::string_view* data);
  // End of input: true when the body is whole (kUntilClose ends so).
  bool at_end_of_input() const { return state_ == State::kDone || kind_ == BodyKind::kUntilClose; }
  bool done() const { return state_ == State::kDone; }
  // After kEnd, while the buffer of that call is unchanged.
  std::span<const FieldView> trailers() const { return storage_.first(trailer_count_); }
  const H1Error& error() const { return error_; }

 private:
  enum class State : uint8_t { kData, kChunkSize, kChunkEnd, kTrailer, kDone, kFailed };
  Event fail(const char* text);
  Event chunk_size(std::string_view in, size_t* consumed);
  Event chunk_end(std::string_view in, size_t* consumed);
  Event trailer(std::string_view in, size_t* consumed);

  std::span<FieldView> storage_;
  H1Limits limits_;
  H1Error error_;
  uint64_t left_ = 0;  // of the body or of the chunk
  size_t scanned_ = 0;
  size_t trailer_count_ = 0;
  BodyKind kind_;
  State state_;
};

}  // namespace edgemesh::http
