// Normalisation of paths (RFC 3986 6.2.2).
#include "proxy/route/policies.h"

namespace edgemesh::proxy {

namespace {

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool unreserved(int c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

bool has_escaped_slash(std::string_view path) {
  for (size_t i = 0; i + 2 < path.size(); ++i) {
    if (path[i] != '%') continue;
    const int code = hex(path[i + 1]) * 16 + hex(path[i + 2]);
    if (code == '/' || code == '\\') return true;
  }
  return false;
}

// Decodes what needs no coding. False: '%' without two hex digits.
bool decode(std::string_view path, bool dots, bool slashes, std::string* out) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      *out += dots && path[i] == '\\' ? '/' : path[i];
      continue;
    }
    if (i + 2 >= path.size() || hex(path[i + 1]) < 0 || hex(path[i + 2]) < 0) return false;
    const int code = hex(path[i + 1]) * 16 + hex(path[i + 2]);
    if (code == 0) return false;
    if ((dots && unreserved(code)) || (slashes && (code == '/' || code == '\\'))) {
      *out += code == '\\' ? '/' : static_cast<char>(code);
    } else {
      *out += '%';
      *out += kDigits[code / 16];
      *out += kDigits[code % 16];
    }
    i += 2;
  }
  return true;
}

// "/a/./b/../c" -> "/a/c". False: it leads above "/".
bool remove_dots(std::string_view path, bool merge, std::string* out) {
  size_t at = 0;
  while (at < path.size()) {  // path[at] is '/'
    size_t end = path.find('/', at + 1);
    const bool last = end == std::string_view::npos;
    if (last) end = path.size();
    const std::string_view segment = path.substr(at + 1, end - at - 1);
    at = end;
    if (segment == ".") {
      if (last) *out += '/';
    } else if (segment == "..") {
      const size_t slash = out->rfind('/');
      if (slash == std::string::npos) return false;
      out->resize(slash);
      if (last) *out += '/';
    } else if (segment.empty() && merge && !last) {
      continue;
    } else {
      *out += '/';
      *out += segment;
    }
  }
  if (out->empty()) *out += '/';
  return true;
}

}  // namespace

PathResult normalize_path(const model::HttpChain& chain, Head* request) {
  const std::string_view path = path_of(request->path);
  if (!path.starts_with('/')) return PathResult::kOk;  // "*", CONNECT
  const bool escaped =
      chain.escaped_slashes != model::PathSlashes::kKeep && has_escaped_slash(path);
  if (escaped && chain.escaped_slashes == model::PathSlashes::kReject) return PathResult::kReject;
  if (!escaped && !chain.normalize_path && !chain.merge_slashes) return PathResult::kOk;
  const bool plain =
      path.find('%') == std::string_view::npos && path.find("/.") == std::string_view::npos &&
      path.find('\\') == std::string_view::npos && path.find("//") == std::string_view::npos;
  if (plain) return PathResult::kOk;
  thread_local std::string decoded, text;
  decoded.clear();
  text.clear();
  if (!decode(path, chain.normalize_path, escaped, &decoded)) return PathResult::kReject;
  if (chain.normalize_path) {
    if (!remove_dots(decoded, chain.merge_slashes, &text)) return PathResult::kReject;
  } else {
    for (const char c : decoded)
      if (!(chain.merge_slashes && c == '/' && text.ends_with('/'))) text += c;
  }
  text += request->path.substr(path.size());
  if (text != request->path) request->path = request->keep(text);
  return escaped && chain.escaped_slashes == model::PathSlashes::kRedirect ? PathResult::kRedirect
                                                                           : PathResult::kOk;
}

}  // namespace edgemesh::proxy
