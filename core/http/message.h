// HTTP messages as values (RFC 9110). Header names compare without case and keep their spelling.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/net_addr.h"
#include "core/base/result.h"
#include "core/tls/context.h"

namespace edgemesh::http {

bool equals_ignore_case(std::string_view a, std::string_view b);
// True when `list` ("a, b;q=1") has the element `token` (parameters are not looked at).
bool list_has_token(std::string_view list, std::string_view token);

class Headers {
 public:
  using Field = std::pair<std::string, std::string>;
  Headers() = default;
  Headers(std::initializer_list<Field> fields) : fields_(fields) {}

  void add(std::string_view name, std::string_view value);
  void set(std::string_view name, std::string_view value);  // replaces all of that name
  void remove(std::string_view name);
  std::optional<std::string_view> get(std::string_view name) const;  // the first
  std::string_view get_or(std::string_view name, std::string_view otherwise) const;
  bool has(std::string_view name) const { return get(name).has_value(); }
  // True when a field of that name lists the token ("Connection", "upgrade").
  bool has_token(std::string_view name, std::string_view token) const;

  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }
  size_t size() const { return fields_.size(); }
  bool empty() const { return fields_.empty(); }

 private:
  std::vector<Field> fields_;
};

struct Request {
  std::string method;
  std::string target;  // origin form as sent: "/api/v1/pods?watch=1"
  Headers headers;
  std::string body;
  SockAddr peer_addr;
  std::shared_ptr<const tls::PeerIdentity> peer;  // null: no verified client certificate
  bool secure = false;                            // came over TLS
  int version = 11;                               // 10, 11 or 20

  // The path with percent escapes decoded; "/" for "*". Dots are not resolved: a handler that maps
  // paths to files must refuse "..".
  std::string path() const;
  std::string_view raw_path() const;   // as sent, without the query
  std::string_view raw_query() const;  // without '?'
  // The first value of a query parameter, decoded ('+' is a space); nullopt when absent.
  std::optional<std::string> query(std::string_view name) const;
  std::vector<std::pair<std::string, std::string>> query_all() const;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
};

std::string_view reason_phrase(int status);
// nullopt when an escape is malformed or decodes to NUL.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);
// Everything but RFC 3986 unreserved characters is escaped.
std::string percent_encode(std::string_view text);

// http, https, ws, wss. A path is optional, user info is refused.
struct Url {
  std::string scheme;
  std::string host;  // without brackets
  uint16_t port = 0;
  std::string target = "/";  // path and query
  bool secure() const { return scheme == "https" || scheme == "wss"; }
  std::string authority() const;  // as in the Host field: the default port is left out
  static Result<Url> parse(std::string_view text);
};

}  // namespace edgemesh::http
