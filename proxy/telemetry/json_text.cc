#include "proxy/telemetry/json_text.h"

#include <cstdint>

namespace edgemesh::proxy {

namespace {

bool is_plain(uint8_t c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

// Bytes of the well-formed sequence at the beginning of `text` (Unicode 3.9, table 3-7); 0: none.
size_t utf8_length(std::string_view text) {
  const auto at = [text](size_t i) -> uint8_t {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0};
  };
  const auto tail = [&at](size_t i) { return at(i) >= 0x80 && at(i) <= 0xbf; };
  const uint8_t first = at(0);
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const uint8_t low = first == 0xe0 ? 0xa0 : 0x80;   // no longer than needed
    const uint8_t high = first == 0xed ? 0x9f : 0xbf;  // no surrogates
    return at(1) >= low && at(1) <= high && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const uint8_t low = first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xf4 ? 0x8f : 0xbf;
    return at(1) >= low && at(1) <= high && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

void append_escape(uint8_t c, std::string* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  switch (c) {
    case '"': out->append("\\\""); return;
    case '\\': out->append("\\\\"); return;
    case '\n': out->append("\\n"); return;
    case '\r': out->append("\\r"); return;
    case '\t': out->append("\\t"); return;
    default: break;
  }
  if (c >= 0x80) {
    out->append("\\ufffd");
    return;
  }
  const char text[] = {'\\', 'u', '0', '0', kDigits[c >> 4], kDigits[c & 15]};
  out->append(text, sizeof text);
}

}  // namespace

void append_json(std::string_view text, std::string* out) {
  while (!text.empty()) {
    size_t plain = 0;
    while (plain < text.size() && is_plain(static_cast<uint8_t>(text[plain]))) ++plain;
    out->append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) return;
    size_t length = utf8_length(text);
    if (length > 0) {
      out->append(text.substr(0, length));
    } else {
      append_escape(static_cast<uint8_t>(text[0]), out);
      length = 1;
    }
    text.remove_prefix(length);
  }
}

}  // namespace edgemesh::proxy
