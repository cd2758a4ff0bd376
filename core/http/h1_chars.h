// Character classes of RFC 9110 and one field line. For core/http only.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/http/h1_parser.h"

namespace edgemesh::http {

enum CharClass : uint8_t { kToken = 1, kTarget = 2, kValue = 4, kHost = 8 };

constexpr std::array<uint8_t, 256> make_char_classes() {
  std::array<uint8_t, 256> t{};
  auto mark = [&t](std::string_view chars, uint8_t bit) {
    for (char c : chars) t[static_cast<uint8_t>(c)] |= bit;
  };
  for (int c = 0x20; c < 256; ++c)
    if (c != 0x7f) t[static_cast<size_t>(c)] |= kValue;
  t['\t'] |= kValue;
  for (int c = 0x21; c < 0x7f; ++c)
    if (c != '#') t[static_cast<size_t>(c)] |= kTarget;
  constexpr std::string_view kAlnum =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  mark(kAlnum, kToken | kHost);
  mark("!#$%&'*+-.^_`|~", kToken);
  mark("-._~%!$&'()*+;=:[]", kHost);
  return t;
}
inline constexpr std::array<uint8_t, 256> kCharClasses = make_char_classes();

inline bool all_of_class(std::string_view text, CharClass wanted) {
  for (char c : text)
    if ((kCharClasses[static_cast<uint8_t>(c)] & wanted) == 0) return false;
  return true;
}

// `line` without its CRLF. Returns null, or what is wrong.
const char* parse_field_line(std::string_view line, FieldView* field);

}  // namespace edgemesh::http
