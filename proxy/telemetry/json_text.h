// Text as the inside of a JSON string (RFC 8259 7), without the quotes.
#pragma once

#include <string>
#include <string_view>

namespace edgemesh::proxy {

// Escapes quotes, backslashes and control characters. What is no UTF-8 becomes U+FFFD a byte: a peer's
// fields may hold any byte, and one bad line must not break a reader of the log. Allocates nothing
// when `out` has room (at most 6 bytes a byte).
void append_json(std::string_view text, std::string* out);

}  // namespace edgemesh::proxy
