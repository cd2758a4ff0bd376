#include <algorithm>
#include <cstring>

#include "core/http/h1_chars.h"
#include "core/http/h1_parser.h"
#include "core/http/message.h"

namespace edgemesh::http {

namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Fields that decide about framing or routing must not come after the body (RFC 9110 6.5.1).
bool forbidden_trailer(std::string_view name) {
  return equals_ignore_case(name, "content-length") ||
         equals_ignore_case(name, "transfer-encoding") || equals_ignore_case(name, "host") ||
         equals_ignore_case(name, "connection") || equals_ignore_case(name, "trailer");
}

}  // namespace

H1BodyDecoder::H1BodyDecoder(BodyKind kind, uint64_t length, std::span<FieldView> storage,
                             const H1Limits& limits)
    : storage_(storage), limits_(limits), kind_(kind), state_(State::kData) {
  if (kind == BodyKind::kNone || (kind == BodyKind::kLength && length == 0)) state_ = State::kDone;
  if (kind == BodyKind::kLength) left_ = length;
  if (kind == BodyKind::kUntilClose) left_ = UINT64_MAX;
  if (kind == BodyKind::kChunked) state_ = State::kChunkSize;
}

H1BodyDecoder::Event H1BodyDecoder::fail(const char* text) {
  error_ = {400, text};
  state_ = State::kFailed;
  return kError;
}

H1BodyDecoder::Event H1BodyDecoder::next(std::string_view in, size_t* consumed,
                                         std::string_view* data) {
  *consumed = 0;
  while (true) {
    std::string_view rest = in.substr(*consumed);
    Event event = kNeedMore;
    size_t taken = 0;
    switch (state_) {
      case State::kDone: return kEnd;
      case State::kFailed: return kError;
      case State::kData: {
        if (rest.empty()) return kNeedMore;
        size_t n = static_cast<size_t>(std::min<uint64_t>(left_, rest.size()));
        *data = rest.substr(0, n);
        *consumed += n;
        if (kind_ != BodyKind::kUntilClose) left_ -= n;
        if (left_ == 0) state_ = kind_ == BodyKind::kChunked ? State::kChunkEnd : State::kDone;
        return kData;
      }
      case State::kChunkSize: event = chunk_size(rest, &taken); break;
      case State::kChunkEnd: event = chunk_end(rest, &taken); break;
      case State::kTrailer: event = trailer(rest, &taken); break;
    }
    *consumed += taken;
    if (event != kData) return event;
  }
}

// The helpers return kData to say "go on with the new state".

H1BodyDecoder::Event H1BodyDecoder::chunk_size(std::string_view in, size_t* consumed) {
  size_t lf = in.find('\n', scanned_);
  if (lf == std::string_view::npos || lf > limits_.max_chunk_line) {
    if (in.size() > limits_.max_chunk_line) return fail("a chunk size line is too long");
    scanned_ = in.size();
    if (!in.empty() && hex_value(in[0]) < 0) return fail("a chunk size is not a hex number");
    return kNeedMore;
  }
  scanned_ = 0;
  if (lf == 0 || in[lf - 1] != '\r') return fail("a chunk size line ends without CR");
  std::string_view line = in.substr(0, lf - 1);
  size_t digits = 0;
  uint64_t size = 0;
  while (digits < line.size() && hex_value(line[digits]) >= 0) {
    if (digits == 15) return fail("a chunk size is too large");
    size = size * 16 + static_cast<uint64_t>(hex_value(line[digits]));
    ++digits;
  }
  if (digits == 0) return fail("a chunk size is not a hex number");
  std::string_view extension = line.substr(digits);
  if (!extension.empty() && (extension[0] != ';' || !all_of_class(extension, kValue)))
    return fail("a chunk size is not a hex number");
  *consumed = lf + 1;
  left_ = size;
  state_ = size == 0 ? State::kTrailer : State::kData;
  return kData;
}

H1BodyDecoder::Event H1BodyDecoder::chunk_end(std::string_view in, size_t* consumed) {
  if (!in.empty() && in[0] != '\r') return fail("a chunk is longer than its size says");
  if (in.size() < 2) return kNeedMore;
  if (in[1] != '\n') return fail("a chunk ends without CRLF");
  *consumed = 2;
  state_ = State::kChunkSize;
  return kData;
}

H1BodyDecoder::Event H1BodyDecoder::trailer(std::string_view in, size_t* consumed) {
  // The section is parsed when it is whole, so that the views stay valid together.
  size_t line_start = 0;
  size_t end = std::string_view::npos;
  size_t lines = 0;
  for (size_t at = 0; (at = in.find('\n', at)) != std::string_view::npos; line_start = ++at) {
    if (at == line_start || in[at - 1] != '\r') return fail("a trailer line ends without CR");
    if (at - line_start == 1) {
      end = at + 1;
      break;
    }
    if (++lines > limits_.max_fields || lines > storage_.size())
      return fail("too many trailer fields");
  }
  if ((end == std::string_view::npos ? in.size() : end) > limits_.max_trailer)
    return fail("the trailer is too long");
  if (end == std::string_view::npos) return kNeedMore;
  std::string_view text = in.substr(0, end - 2);
  while (!text.empty()) {
    size_t lf = text.find('\n');
    FieldView& field = storage_[trailer_count_];
    if (const char* wrong = parse_field_line(text.substr(0, lf - 1), &field); wrong != nullptr)
      return fail(wrong);
    if (forbidden_trailer(field.name)) return fail("a field that is not allowed in a trailer");
    ++trailer_count_;
    text.remove_prefix(lf + 1);
  }
  *consumed = end;
  state_ = State::kDone;
  return kEnd;
}

}  // namespace edgemesh::http
