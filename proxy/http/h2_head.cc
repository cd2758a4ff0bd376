#include "proxy/http/h2_head.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <vector>

#include "core/http/message.h"

namespace edgemesh::proxy::h2 {

using http::equals_ignore_case;

namespace {

struct List {
  std::vector<nghttp2_nv> fields;
  std::vector<char> names;  // in lower case
};
thread_local List list;

bool upper(char c) {
  return c >= 'A' && c <= 'Z';
}

void put(std::string_view name, std::string_view value, uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
  list.fields.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),   // NOLINT
                         reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())),  // NOLINT
                         name.size(), value.size(), flags});
}

// Fields that belong to a connection have no place in HTTP/2 (RFC 9113 8.2.2).
bool unwanted(std::string_view name, std::string_view value) {
  auto is = [name](std::string_view other) { return equals_ignore_case(name, other); };
  switch (name.size()) {
    case 2: return is("te") && !equals_ignore_case(value, "trailers");
    case 4: return is("host");
    case 7: return is("upgrade");
    case 10: return is("connection") || is("keep-alive");
    case 14: return is("http2-settings");
    case 16: return is("proxy-connection");
    case 17: return is("transfer-encoding");
    default: return name.empty() || name[0] == ':';
  }
}

// Secrets stay out of the compression table, which requests of several users share.
uint8_t flags_of(std::string_view name) {
  bool secret = (name.size() == 13 && name == "authorization") ||
                (name.size() == 6 && name == "cookie") ||
                (name.size() == 10 && name == "set-cookie");
  return secret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE;
}

std::span<nghttp2_nv> add_fields(const Head& head) {
  size_t bytes = 0;
  for (const FieldView& field : head.fields()) bytes += field.name.size();
  if (list.names.size() < bytes) list.names.resize(bytes);
  char* at = list.names.data();
  for (const FieldView& field : head.fields()) {
    if (unwanted(field.name, field.value)) continue;
    std::string_view name = field.name;
    if (std::any_of(name.begin(), name.end(), upper)) {
      std::transform(name.begin(), name.end(), at,
                     [](char c) { return upper(c) ? static_cast<char>(c + 32) : c; });
      name = {at, name.size()};
      at += name.size();
    }
    put(name, field.value, flags_of(name));
  }
  return list.fields;
}

}  // namespace

std::span<nghttp2_nv> request_list(const Head& head) {
  list.fields.clear();
  bool extended = !head.protocol.empty();
  bool plain_connect = !extended && head.method == "CONNECT";
  put(":method", extended ? std::string_view("CONNECT") : head.method);
  if (extended) put(":protocol", head.protocol);
  if (!plain_connect) {
    put(":scheme", head.scheme.empty() ? std::string_view("http") : head.scheme);
    put(":path", head.path.empty() ? std::string_view("/") : head.path);
  }
  if (!head.authority.empty()) put(":authority", head.authority);
  return add_fields(head);
}

std::span<nghttp2_nv> answer_list(const Head& head) {
  thread_local char digits[12];
  int status = head.status == 101 ? 200 : head.status;
  auto end = std::to_chars(digits, digits + sizeof digits, status).ptr;
  list.fields.clear();
  put(":status", {digits, static_cast<size_t>(end - digits)});
  return add_fields(head);
}

std::span<nghttp2_nv> trailer_list(const Head& head) {
  list.fields.clear();
  return add_fields(head);
}

namespace {

void read_pseudo(Head* head, std::string_view name, std::string_view value) {
  if (name == ":method")
    head->method = head->keep(value);
  else if (name == ":path")
    head->path = head->keep(value);
  else if (name == ":authority")
    head->authority = head->keep(value);
  else if (name == ":scheme")
    head->scheme = head->keep(value);
  else if (name == ":status")
    std::from_chars(value.data(), value.data() + value.size(), head->status);
  else if (name == ":protocol")
    head->protocol = head->keep(value);
}

// Crumbs become one field again (RFC 9113 8.2.3).
void read_cookie(Head* head, std::string_view value) {
  std::string_view before = head->get("cookie");
  if (before.empty()) return head->add("cookie", value);
  size_t size = before.size() + 2 + value.size();
  char* at = head->allocate(size);
  std::memcpy(at, before.data(), before.size());
  std::memcpy(at + before.size(), "; ", 2);
  std::memcpy(at + before.size() + 2, value.data(), value.size());
  head->remove("cookie");
  head->add_kept("cookie", {at, size});
}

}  // namespace

void read_field(Head* head, std::string_view* host, std::string_view name, std::string_view value) {
  if (name.empty()) return;
  if (name[0] == ':') return read_pseudo(head, name, value);
  switch (name.size()) {
    case 4:
      if (name == "host") {
        *host = head->keep(value);
        return;
      }
      break;
    case 6:
      if (name == "cookie") return read_cookie(head, value);
      if (name == "expect" && equals_ignore_case(value, "100-continue"))
        head->expect_continue = true;
      break;
    case 14:  // nghttp2 checked that it is one number
      if (name == "content-length") {
        head->has_length = true;
        std::from_chars(value.data(), value.data() + value.size(), head->length);
      }
      break;
    default: break;
  }
  head->add(name, value);
}

const char* finish_request(Head* head, std::string_view host) {
  if (head->authority.empty())
    head->authority = host;
  else if (!host.empty() && !equals_ignore_case(host, head->authority))
    return "Host and :authority differ";
  if (!head->protocol.empty()) {
    head->method = "GET";
    head->has_length = false;
  }
  return nullptr;
}

}  // namespace edgemesh::proxy::h2
