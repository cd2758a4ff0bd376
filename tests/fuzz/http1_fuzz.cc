// HTTP/1 heads and bodies. Whatever the bytes, whole and in pieces must be judged the same, views
// must lie in the input, and what is consumed must not exceed it.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/http/h1_parser.h"

using namespace edgemesh::http;  // NOLINT

namespace {

void check_inside(std::string_view part, std::string_view all) {
  if (part.empty()) return;
  EM_CHECK(part.data() >= all.data() && part.data() + part.size() <= all.data() + all.size());
}

struct Verdict {
  H1Status status = H1Status::kIncomplete;
  size_t consumed = 0;
  BodyKind body = BodyKind::kNone;
  uint64_t length = 0;
};

Verdict parse(H1HeadParser::Kind kind, std::string_view text, size_t step) {
  std::array<FieldView, 32> storage;
  H1HeadParser parser(kind, storage);
  H1Head head;
  Verdict out;
  for (size_t shown = std::min(step, text.size());; shown = std::min(text.size(), shown + step)) {
    out.status = parser.parse(text.substr(0, shown), &head, &out.consumed);
    if (out.status != H1Status::kIncomplete || shown == text.size()) break;
  }
  if (out.status != H1Status::kComplete) return out;
  EM_CHECK(out.consumed <= text.size());
  for (const FieldView& field : head.fields) {
    check_inside(field.name, text);
    check_inside(field.value, text);
    EM_CHECK(field.value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos);
  }
  check_inside(head.target, text);
  out.body = head.body;
  out.length = head.content_length;
  return out;
}

std::string decode(const Verdict& head, std::string_view text, size_t step, int* last) {
  std::array<FieldView, 8> storage;
  H1BodyDecoder decoder(head.body, head.length, storage);
  std::string data;
  size_t done = 0;
  for (size_t shown = std::min(step, text.size());; shown = std::min(text.size(), shown + step)) {
    while (true) {
      size_t n = 0;
      std::string_view part;
      *last = decoder.next(text.substr(done, shown - done), &n, &part);
      EM_CHECK(n <= shown - done);
      if (*last == H1BodyDecoder::kData) data += part;
      done += n;
      if (*last != H1BodyDecoder::kData) break;
    }
    if (*last != H1BodyDecoder::kNeedMore || shown == text.size()) break;
  }
  return data;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);  // NOLINT
  if (size == 0 || size > 16384) return 0;
  for (auto kind : {H1HeadParser::kRequest, H1HeadParser::kResponse}) {
    Verdict whole = parse(kind, text, size);
    for (size_t step : {size_t{1}, size_t{7}}) {
      Verdict pieces = parse(kind, text, step);
      EM_CHECK(whole.status == pieces.status);
      if (whole.status != H1Status::kComplete) continue;
      EM_CHECK(whole.consumed == pieces.consumed && whole.body == pieces.body &&
               whole.length == pieces.length);
      int a = 0;
      int b = 0;
      std::string_view body = text.substr(whole.consumed);
      if (body.empty()) continue;
      std::string one = decode(whole, body, body.size(), &a);
      std::string two = decode(whole, body, step, &b);
      EM_CHECK(a == b && (a == H1BodyDecoder::kError || one == two));
    }
  }
  return 0;
}
