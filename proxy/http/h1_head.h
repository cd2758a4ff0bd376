// Between parsed HTTP/1 heads and Head, and the texts of status lines. For proxy/http/h1_* only.
#pragma once

#include <string_view>

#include "core/http/h1_parser.h"
#include "proxy/http/head.h"

namespace edgemesh::proxy::h1 {

// Fills `out` from `head`, whose text is the first `size` bytes at `text`: copied once. Fields that
// belong to the connection are left out. Null, or what is wrong with the target.
const char* fill_request(const http::H1Head& head, std::string_view text, bool tls, Head* out);
void fill_answer(const http::H1Head& head, std::string_view text, Head* out);

std::string_view reason_phrase(int status);

}  // namespace edgemesh::proxy::h1
