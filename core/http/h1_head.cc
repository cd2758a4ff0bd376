#include <algorithm>
#include <cstring>

#include "core/http/h1_chars.h"
#include "core/http/h1_parser.h"
#include "core/http/message.h"

namespace edgemesh::http {

namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

const char* parse_field_line(std::string_view line, FieldView* field) {
  size_t n = 0;
  while (n < line.size() && (kCharClasses[static_cast<uint8_t>(line[n])] & kToken) != 0) ++n;
  if (n == line.size()) return "a header line has no colon";
  if (n == 0) {
    bool folded = line.front() == ' ' || line.front() == '\t';
    return folded ? "folded header lines are not allowed" : "a header name is empty or not a token";
  }
  if (line[n] != ':') {
    bool space = line[n] == ' ' || line[n] == '\t';
    return space ? "space before the colon of a header" : "a header name is not a token";
  }
  std::string_view value = trim(line.substr(n + 1));
  if (!all_of_class(value, kValue)) return "a header value has a control character";
  field->name = line.substr(0, n);
  field->value = value;
  return nullptr;
}

std::string_view H1Head::get(std::string_view name) const {
  for (const FieldView& field : fields)
    if (equals_ignore_case(field.name, name)) return field.value;
  return {};
}

H1HeadParser::H1HeadParser(Kind kind, std::span<FieldView> storage, const H1Limits& limits)
    : storage_(storage), limits_(limits), kind_(kind) {}

void H1HeadParser::answers(std::string_view request_method) {
  answers_head_ = request_method == "HEAD";
  answers_connect_ = request_method == "CONNECT";
}

void H1HeadParser::reset() {
  skipped_ = scanned_ = line_start_ = lines_ = 0;
  chunked_ = close_ = keep_alive_ = host_seen_ = expect_ = false;
  error_ = {};
}

H1Status H1HeadParser::fail(int status, const char* text) {
  error_ = {status, text};
  return H1Status::kError;
}

// Walks line ends from where it stopped last time. False: not found yet, or error_ is set.
bool H1HeadParser::find_end(std::string_view buffer, size_t* end) {
  while (scanned_ < buffer.size()) {
    const void* hit = std::memchr(buffer.data() + scanned_, '\n', buffer.size() - scanned_);
    if (hit == nullptr) {
      scanned_ = buffer.size();
      break;
    }
    auto at = static_cast<size_t>(static_cast<const char*>(hit) - buffer.data());
    if (at == line_start_ || buffer[at - 1] != '\r') {
      fail(400, "a line ends without CR");
      return false;
    }
    size_t length = at - 1 - line_start_;
    scanned_ = at + 1;
    if (length == 0 && lines_ == 0 && kind_ == kRequest && skipped_ < 4) {
      skipped_ = line_start_ = scanned_;
      continue;
    }
    if (length == 0) {
      *end = scanned_;
      return true;
    }
    if (lines_ == 0 && length > limits_.max_start_line) break;
    line_start_ = scanned_;
    if (++lines_ > limits_.max_fields + 1 || lines_ > storage_.size() + 1) {
      fail(431, "too many header fields");
      return false;
    }
  }
  if (lines_ == 0 && scanned_ - line_start_ > limits_.max_start_line + 2)
    fail(kind_ == kRequest ? 414 : 502, "the first line is too long");
  return false;
}

H1Status H1HeadParser::parse(std::string_view buffer, H1Head* head, size_t* consumed) {
  size_t end = 0;
  bool found = find_end(buffer, &end);
  if (error_.status != 0) return H1Status::kError;
  if ((found ? end : buffer.size()) - skipped_ > limits_.max_head)
    return fail(431, "the header is too long");
  if (!found) {
    // Something else than HTTP (a TLS hello) is told at its first byte, not after the limit.
    if (buffer.size() > skipped_ && buffer[skipped_] != '\r' &&
        (kCharClasses[static_cast<uint8_t>(buffer[skipped_])] & kToken) == 0)
      return fail(400, "this is not HTTP/1");
    return H1Status::kIncomplete;
  }
  std::string_view text = buffer.substr(skipped_, end - 2 - skipped_);  // every line with its CRLF
  size_t first = text.find('\n');
  if (first == std::string_view::npos) return fail(400, "the first line is empty");
  std::string_view line = text.substr(0, first - 1);
  *head = H1Head{};
  bool ok = kind_ == kRequest ? parse_request_line(line, head) : parse_status_line(line, head);
  if (!ok || !parse_fields(text.substr(first + 1), head)) return H1Status::kError;
  ok = kind_ == kRequest ? decide_request_body(head) : decide_response_body(head);
  if (!ok) return H1Status::kError;
  *consumed = end;
  return H1Status::kComplete;
}

bool H1HeadParser::parse_request_line(std::string_view line, H1Head* head) {
  size_t space = line.find(' ');
  size_t last = line.rfind(' ');
  if (space == std::string_view::npos || last == space) {
    fail(400, "the request line wants METHOD TARGET VERSION");
    return false;
  }
  head->method = line.substr(0, space);
  head->target = line.substr(space + 1, last - space - 1);
  std::string_view version = line.substr(last + 1);
  if (head->method.empty() || !all_of_class(head->method, kToken)) {
    fail(400, "the method is not a token");
    return false;
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    bool http = version.size() == 8 && version.substr(0, 5) == "HTTP/" && is_digit(version[5]) &&
                version[6] == '.' && is_digit(version[7]);
    fail(http ? 505 : 400, http ? "HTTP version not supported" : "the HTTP version is malformed");
    return false;
  }
  head->minor_version = version[7] - '0';
  std::string_view target = head->target;
  if (target.empty() || !all_of_class(target, kTarget)) {
    fail(400, "the request target is malformed");
    return false;
  }
  bool connect = head->method == "CONNECT";
  bool origin = target.front() == '/' || (target == "*" && head->method == "OPTIONS");
  bool absolute = target.find("://") != std::string_view::npos && target.find("://") > 0;
  bool authority = all_of_class(target, kHost) && target.find(':') != std::string_view::npos;
  if (connect ? !authority : !(origin || absolute)) {
    fail(400, "the request target has not the form that the method wants");
    return false;
  }
  return true;
}

bool H1HeadParser::parse_status_line(std::string_view line, H1Head* head) {
  bool ok = line.size() >= 12 && line.substr(0, 7) == "HTTP/1." &&
            (line[7] == '0' || line[7] == '1') && line[8] == ' ' && line[9] >= '1' &&
            line[9] <= '5' && is_digit(line[10]) && is_digit(line[11]) &&
            (line.size() == 12 || line[12] == ' ') && all_of_class(line, kValue);
  if (!ok) {
    fail(502, "the status line is malformed");
    return false;
  }
  head->minor_version = line[7] - '0';
  head->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  if (line.size() > 13) head->reason = line.substr(13);
  return true;
}

bool H1HeadParser::parse_fields(std::string_view lines, H1Head* head) {
  size_t count = 0;
  while (!lines.empty()) {
    size_t lf = lines.find('\n');  // find_end saw a CR before each
    FieldView& field = storage_[count];
    if (const char* wrong = parse_field_line(lines.substr(0, lf - 1), &field); wrong != nullptr) {
      fail(400, wrong);
      return false;
    }
    if (!note_field(field, head)) return false;
    ++count;
    lines.remove_prefix(lf + 1);
  }
  head->fields = storage_.first(count);
  return true;
}

bool H1HeadParser::note_field(const FieldView& field, H1Head* head) {
  std::string_view name = field.name;
  switch (name.size()) {
    case 4:
      if (kind_ == kRequest && equals_ignore_case(name, "host"))
        return note_host(field.value, head);
      return true;
    case 6:
      if (kind_ != kRequest || !equals_ignore_case(name, "expect")) return true;
      if (equals_ignore_case(field.value, "100-continue")) {
        expect_ = true;
        return true;
      }
      fail(417, "only Expect: 100-continue is known");
      return false;
    case 7:
      if (equals_ignore_case(name, "upgrade")) head->upgrade_protocol = field.value;
      return true;
    case 10:
      if (!equals_ignore_case(name, "connection")) return true;
      close_ |= list_has_token(field.value, "close");
      keep_alive_ |= list_has_token(field.value, "keep-alive");
      head->upgrade |= list_has_token(field.value, "upgrade");
      return true;
    case 14:
      if (equals_ignore_case(name, "content-length")) return note_content_length(field.value, head);
      return true;
    case 17:
      if (equals_ignore_case(name, "transfer-encoding")) return note_transfer_encoding(field.value);
      return true;
    default: return true;
  }
}

bool H1HeadParser::note_content_length(std::string_view value, H1Head* head) {
  if (head->has_content_length) {
    fail(400, "more than one Content-Length");
    return false;
  }
  if (value.empty() || value.size() > 18 || !std::all_of(value.begin(), value.end(), is_digit)) {
    fail(400, "Content-Length is not a number");
    return false;
  }
  for (char c : value)
    head->content_length = head->content_length * 10 + static_cast<uint64_t>(c - '0');
  head->has_content_length = true;
  return true;
}

bool H1HeadParser::note_transfer_encoding(std::string_view value) {
  if (chunked_) {
    fail(400, "more than one Transfer-Encoding");
    return false;
  }
  if (!equals_ignore_case(value, "chunked")) {
    fail(501, "only Transfer-Encoding: chunked is known");
    return false;
  }
  chunked_ = true;
  return true;
}

bool H1HeadParser::note_host(std::string_view value, H1Head* head) {
  if (host_seen_ || !all_of_class(value, kHost)) {
    fail(400, host_seen_ ? "more than one Host" : "Host is malformed");
    return false;
  }
  host_seen_ = true;
  head->host = value;
  return true;
}

bool H1HeadParser::decide_request_body(H1Head* head) {
  bool http11 = head->minor_version == 1;
  if (http11 && !host_seen_) {
    fail(400, "Host is missing");
    return false;
  }
  if (chunked_ && (head->has_content_length || !http11)) {
    fail(400, http11 ? "Content-Length beside Transfer-Encoding" : "Transfer-Encoding in HTTP/1.0");
    return false;
  }
  head->keep_alive = http11 ? !close_ : keep_alive_ && !close_;
  head->expect_continue = expect_ && http11;
  head->upgrade = head->upgrade && http11 && !head->upgrade_protocol.empty();
  if (chunked_)
    head->body = BodyKind::kChunked;
  else if (head->content_length > 0)
    head->body = BodyKind::kLength;
  return true;
}

bool H1HeadParser::decide_response_body(H1Head* head) {
  bool http11 = head->minor_version == 1;
  if (chunked_ && (head->has_content_length || !http11)) {
    fail(502, http11 ? "Content-Length beside Transfer-Encoding" : "Transfer-Encoding in HTTP/1.0");
    return false;
  }
  int status = head->status;
  bool bodiless = status < 200 || status == 204;
  if (bodiless && (chunked_ || (head->has_content_length && head->content_length != 0))) {
    fail(502, "a body where the status allows none");
    return false;
  }
  head->keep_alive = http11 ? !close_ : keep_alive_ && !close_;
  bool tunnel = answers_connect_ && status >= 200 && status < 300;
  if (bodiless || status == 304 || answers_head_ || tunnel) return true;
  if (chunked_) {
    head->body = BodyKind::kChunked;
  } else if (head->has_content_length) {
    head->body = head->content_length > 0 ? BodyKind::kLength : BodyKind::kNone;
  } else {
    head->body = BodyKind::kUntilClose;
    head->keep_alive = false;
  }
  return true;
}

}  // namespace edgemesh::http
