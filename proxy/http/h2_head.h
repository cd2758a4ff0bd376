// Between Head and HTTP/2 header lists. For proxy/http/h2_* only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <span>
#include <string_view>

#include "proxy/http/head.h"

namespace edgemesh::proxy::h2 {

// Header lists to give to nghttp2, which copies; valid until the next call on this thread.
std::span<nghttp2_nv> request_list(const Head& head);
std::span<nghttp2_nv> answer_list(const Head& head);
std::span<nghttp2_nv> trailer_list(const Head& head);

// One field that came; pseudo-fields, too. `host` is set by Host.
void read_field(Head* head, std::string_view* host, std::string_view name, std::string_view value);
// When all fields are in. Null, or what is wrong.
const char* finish_request(Head* head, std::string_view host);

}  // namespace edgemesh::proxy::h2
