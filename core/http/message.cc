#include "core/http/message.h"

#include <algorithm>
#include <charconv>

#include "core/http/h1_chars.h"

namespace edgemesh::http {

namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

bool equals_ignore_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

bool list_has_token(std::string_view list, std::string_view token) {
  while (!list.empty()) {
    size_t comma = std::min(list.find(','), list.size());
    std::string_view item = list.substr(0, comma);
    item = trim(item.substr(0, std::min(item.find(';'), item.size())));
    if (equals_ignore_case(item, token)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

void Headers::add(std::string_view name, std::string_view value) {
  fields_.emplace_back(name, value);
}

void Headers::set(std::string_view name, std::string_view value) {
  remove(name);
  add(name, value);
}

void Headers::remove(std::string_view name) {
  std::erase_if(fields_, [&](const Field& f) { return equals_ignore_case(f.first, name); });
}

std::optional<std::string_view> Headers::get(std::string_view name) const {
  for (const Field& field : fields_)
    if (equals_ignore_case(field.first, name)) return field.second;
  return std::nullopt;
}

std::string_view Headers::get_or(std::string_view name, std::string_view otherwise) const {
  return get(name).value_or(otherwise);
}

bool Headers::has_token(std::string_view name, std::string_view token) const {
  return std::any_of(fields_.begin(), fields_.end(), [&](const Field& f) {
    return equals_ignore_case(f.first, name) && list_has_token(f.second, token);
  });
}

std::string_view Request::raw_path() const {
  std::string_view text = target;
  // Absolute form: what stands behind the authority.
  if (!text.empty() && text.front() != '/') {
    size_t scheme = text.find("://");
    if (scheme == std::string_view::npos) return "/";
    text.remove_prefix(scheme + 3);
    text.remove_prefix(std::min(text.find_first_of("/?"), text.size()));
  }
  text = text.substr(0, text.find('?'));
  return text.empty() ? "/" : text;
}

std::string_view Request::raw_query() const {
  size_t mark = target.find('?');
  return mark == std::string::npos ? std::string_view() : std::string_view(target).substr(mark + 1);
}

std::string Request::path() const {
  auto decoded = percent_decode(raw_path());
  return decoded ? *decoded : std::string(raw_path());
}

std::vector<std::pair<std::string, std::string>> Request::query_all() const {
  std::vector<std::pair<std::string, std::string>> out;
  std::string_view rest = raw_query();
  while (!rest.empty()) {
    size_t end = std::min(rest.find('&'), rest.size());
    std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (pair.empty()) continue;
    size_t equals = std::min(pair.find('='), pair.size());
    auto name = percent_decode(pair.substr(0, equals), true);
    auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (name && value) out.emplace_back(std::move(*name), std::move(*value));
  }
  return out;
}

std::optional<std::string> Request::query(std::string_view name) const {
  for (auto& [key, value] : query_all())
    if (key == name) return value;
  return std::nullopt;
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
  }
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '+' && plus_is_space) c = ' ';
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      int high = hex_value(text[i + 1]);
      int low = hex_value(text[i + 2]);
      if (high < 0 || low < 0 || high + low == 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    out += c;
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    bool plain = (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' ||
                 c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
      continue;
    }
    auto b = static_cast<uint8_t>(c);
    out += '%';
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string Url::authority() const {
  std::string out = host.find(':') != std::string::npos ? "[" + host + "]" : host;
  uint16_t standard = secure() ? 443 : 80;
  return port == standard ? out : out + ":" + std::to_string(port);
}

Result<Url> Url::parse(std::string_view text) {
  auto bad = [&](const char* what) {
    return edgemesh::fail(ErrorCode::kInvalidArgument, "URL '{}': {}", text.substr(0, 200), what);
  };
  Url url;
  size_t colon = text.find("://");
  if (colon == std::string_view::npos) return bad("want http://, https://, ws:// or wss://");
  for (char c : text.substr(0, colon)) url.scheme += lower(c);
  if (url.scheme != "http" && url.scheme != "https" && url.scheme != "ws" && url.scheme != "wss")
    return bad("want http://, https://, ws:// or wss://");
  std::string_view rest = text.substr(colon + 3);
  size_t end = std::min(rest.find_first_of("/?#"), rest.size());
  std::string_view authority = rest.substr(0, end);
  std::string_view target = rest.substr(end);
  target = target.substr(0, target.find('#'));
  if (!target.empty()) url.target = (target.front() == '?' ? "/" : "") + std::string(target);
  if (!all_of_class(url.target, kTarget))
    return bad("the path has a character that must be escaped");
  if (authority.find('@') != std::string_view::npos) return bad("a user name is not allowed");
  std::string_view port;
  if (!authority.empty() && authority.front() == '[') {
    size_t close = authority.find(']');
    if (close == std::string_view::npos) return bad("']' is missing");
    url.host = authority.substr(1, close - 1);
    auto ip = IpAddr::parse(url.host);
    if (!ip || !ip->is_v6()) return bad("the address in brackets is not IPv6");
    port = authority.substr(close + 1);
    if (!port.empty() && port.front() != ':') return bad("the port is malformed");
  } else {
    size_t at = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, at);
    port = authority.substr(at);
  }
  if (url.host.empty() || !all_of_class(url.host, kHost)) return bad("the host is malformed");
  url.port = url.secure() ? 443 : 80;
  if (port.size() > 1) {
    port.remove_prefix(1);
    auto [p, ec] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (ec != std::errc() || p != port.data() + port.size() || url.port == 0)
      return bad("the port is malformed");
  }
  return url;
}

}  // namespace edgemesh::http
