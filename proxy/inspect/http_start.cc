#include <algorithm>

#include "proxy/inspect/first_bytes.h"

namespace edgemesh::proxy {

namespace {
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kMaxMethod = 24;
constexpr size_t kMaxLine = 8 << 10;
constexpr std::string_view kVersion = " HTTP/1.";

bool visible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}
}  // namespace

Peek peek_http(std::span<const uint8_t> data, int* version) {
  std::string_view in(reinterpret_cast<const char*>(data.data()), data.size());  // NOLINT
  // The first three bytes of the preface begin no request line that goes on otherwise.
  size_t n = std::min(in.size(), kPreface.size());
  if (in.substr(0, n) == kPreface.substr(0, n) && (n >= 4 || n == in.size())) {
    if (n < kPreface.size()) return Peek::kMore;
    *version = 20;
    return Peek::kYes;
  }
  while (in.starts_with("\r\n")) in.remove_prefix(2);  // RFC 9112 2.2
  if (in.empty() || in == "\r") return Peek::kMore;
  size_t space = std::min(in.find(' '), in.size());
  if (space == 0 || space > kMaxMethod) return Peek::kNo;
  for (char c : in.substr(0, space))
    if (!((c >= 'A' && c <= 'Z') || c == '-' || c == '_')) return Peek::kNo;
  if (space == in.size()) return Peek::kMore;
  std::string_view rest = in.substr(space + 1);
  size_t end = std::min(rest.find(' '), rest.size());
  if (end == 0 || end > kMaxLine || !visible(rest.substr(0, end))) {
    return rest.empty() ? Peek::kMore : Peek::kNo;
  }
  std::string_view tail = rest.substr(end);
  size_t m = std::min(tail.size(), kVersion.size());
  if (tail.substr(0, m) != kVersion.substr(0, m)) return Peek::kNo;
  if (tail.size() <= kVersion.size()) return Peek::kMore;
  char minor = tail[kVersion.size()];
  if (minor != '0' && minor != '1') return Peek::kNo;
  *version = minor == '0' ? 10 : 11;
  return Peek::kYes;
}

}  // namespace edgemesh::proxy
