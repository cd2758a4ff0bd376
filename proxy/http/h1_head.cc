#include "proxy/http/h1_head.h"

#include <algorithm>
#include <cstring>

#include "core/http/message.h"

namespace edgemesh::proxy::h1 {

using http::equals_ignore_case;
using http::list_has_token;

namespace {

// Moves views of the received text to its copy in the head's arena.
class Rebase {
 public:
  Rebase(std::string_view text, Head* out) : from_(text.data()), to_(out->allocate(text.size())) {
    std::memcpy(to_, text.data(), text.size());
  }
  std::string_view operator()(std::string_view part) const {
    if (part.empty()) return {};
    return {to_ + (part.data() - from_), part.size()};
  }
  // In place, in the copy.
  std::string_view lower(std::string_view part) const {
    std::string_view kept = (*this)(part);
    char* at = part.empty() ? nullptr : to_ + (part.data() - from_);
    for (size_t i = 0; i < kept.size(); ++i)
      if (at[i] >= 'A' && at[i] <= 'Z') at[i] = static_cast<char>(at[i] + ('a' - 'A'));
    return kept;
  }

 private:
  const char* from_;
  char* to_;
};

enum class FieldUse : uint8_t { kKeep, kDrop, kConnection, kTe };

FieldUse use_of(std::string_view name) {
  auto is = [name](std::string_view other) { return equals_ignore_case(name, other); };
  switch (name.size()) {
    case 2: return is("te") ? FieldUse::kTe : FieldUse::kKeep;
    case 4: return is("host") ? FieldUse::kDrop : FieldUse::kKeep;
    case 7: return is("upgrade") ? FieldUse::kDrop : FieldUse::kKeep;
    case 10:
      if (is("connection")) return FieldUse::kConnection;
      return is("keep-alive") ? FieldUse::kDrop : FieldUse::kKeep;
    case 16: return is("proxy-connection") ? FieldUse::kDrop : FieldUse::kKeep;
    case 17: return is("transfer-encoding") ? FieldUse::kDrop : FieldUse::kKeep;
    default: return FieldUse::kKeep;
  }
}

// Removes what a Connection field names (RFC 9110 7.6.1).
void remove_named(std::string_view list, Head* out) {
  while (!list.empty()) {
    size_t comma = std::min(list.find(','), list.size());
    std::string_view token = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (!token.empty() && (token.front() == ' ' || token.front() == '\t')) token.remove_prefix(1);
    while (!token.empty() && (token.back() == ' ' || token.back() == '\t')) token.remove_suffix(1);
    bool known = token.empty() || equals_ignore_case(token, "close") ||
                 equals_ignore_case(token, "keep-alive") || equals_ignore_case(token, "upgrade") ||
                 equals_ignore_case(token, "te") || equals_ignore_case(token, "content-length");
    if (!known) out->remove(token);
  }
}

void fill_fields(const http::H1Head& head, const Rebase& rebase, bool request, Head* out) {
  bool named = false;
  for (const FieldView& field : head.fields) {
    FieldUse use = use_of(field.name);
    if (use == FieldUse::kKeep || (use == FieldUse::kDrop && !request && field.name.size() == 4)) {
      out->add_kept(rebase(field.name), rebase(field.value));
    } else if (use == FieldUse::kConnection) {
      named = named || !(equals_ignore_case(field.value, "keep-alive") ||
                         equals_ignore_case(field.value, "close"));
    } else if (use == FieldUse::kTe && request && list_has_token(field.value, "trailers")) {
      out->add_kept("TE", "trailers");
    }
  }
  if (named)
    for (const FieldView& field : head.fields)
      if (use_of(field.name) == FieldUse::kConnection) remove_named(field.value, out);
  out->version = head.minor_version == 0 ? HttpVersion::kHttp10 : HttpVersion::kHttp11;
  out->has_length = head.has_content_length;
  out->length = head.content_length;
}

bool authority_is_sound(std::string_view text) {
  auto ok = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-._~%!$&'()*+,;=:[]").find(c) != std::string_view::npos;
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), ok);
}

// "http://host:80/path?query"
const char* split_absolute(std::string_view target, const Rebase& rebase, Head* out) {
  size_t colon = target.find("://");
  std::string_view scheme = rebase.lower(target.substr(0, colon));
  if (scheme != "http" && scheme != "https") return "the scheme of the target is not http or https";
  std::string_view rest = target.substr(colon + 3);
  size_t end = std::min(rest.find_first_of("/?"), rest.size());
  if (!authority_is_sound(rest.substr(0, end))) return "the host in the target is malformed";
  out->scheme = scheme;
  out->authority = rebase(rest.substr(0, end));
  std::string_view path = rest.substr(end);
  if (path.empty()) {
    out->path = out->method == "OPTIONS" ? "*" : "/";
  } else if (path.front() == '?') {
    char* at = out->allocate(path.size() + 1);
    at[0] = '/';
    std::memcpy(at + 1, path.data(), path.size());
    out->path = {at, path.size() + 1};
  } else {
    out->path = rebase(path);
  }
  return nullptr;
}

}  // namespace

const char* fill_request(const http::H1Head& head, std::string_view text, bool tls, Head* out) {
  Rebase rebase(text, out);
  out->method = rebase(head.method);
  out->scheme = tls ? "https" : "http";
  if (head.method == "CONNECT") {
    out->authority = rebase(head.target);
  } else if (head.target.front() == '/' || head.target == "*") {
    out->path = rebase(head.target);
    out->authority = rebase(head.host);
  } else if (const char* wrong = split_absolute(head.target, rebase, out); wrong != nullptr) {
    return wrong;
  }
  out->expect_continue = head.expect_continue && head.body != http::BodyKind::kNone;
  // An upgrade of a request that has a body is not taken: it is answered as it is (RFC 9110 7.8
  // allows that). The upgrade to HTTP/2 is the connection's own matter.
  if (head.upgrade && head.body == http::BodyKind::kNone && head.method != "CONNECT") {
    std::string_view protocol = rebase.lower(head.upgrade_protocol);
    if (!list_has_token(protocol, "h2c") && !list_has_token(protocol, "h2")) out->protocol = protocol;
  }
  fill_fields(head, rebase, true, out);
  return nullptr;
}

void fill_answer(const http::H1Head& head, std::string_view text, Head* out) {
  Rebase rebase(text, out);
  out->status = head.status;
  if (head.status == 101) out->protocol = rebase.lower(head.upgrade_protocol);
  fill_fields(head, rebase, false, out);
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 417: return "Expectation Failed";
    case 426: return "Upgrade Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "";
  }
}

}  // namespace edgemesh::proxy::h1
