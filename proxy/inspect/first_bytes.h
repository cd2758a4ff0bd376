// What the first bytes of a connection say, before anything is taken from it: a PROXY protocol header,
// a TLS ClientHello with its server name and ALPN protocols, the beginning of HTTP. Pure functions over
// what has arrived; nothing is allocated but where a result is kept. They are asked again with more
// bytes until they do not say kMore; the caller bounds bytes and time.
// Threads: none.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"

namespace edgemesh::proxy {

enum class Peek : uint8_t {
  kMore,   // the bytes so far allow no answer
  kYes,
  kNo,     // it is something else
  kBad,    // it begins like it and is malformed
};

// ---- PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt 2.1, 2.2)
struct ProxyHeader {
  size_t size = 0;       // bytes of the header: what follows is the connection's data
  bool local = false;    // LOCAL or UNKNOWN: the sender speaks for itself, there are no addresses
  SockAddr source, destination;
  const char* error = "";  // with kBad
};
inline constexpr size_t kMaxProxyHeader = 16 + 2048;  // version 2 with its TLVs; longer ones are refused
Peek peek_proxy_header(std::span<const uint8_t> data, ProxyHeader* out);

// ---- TLS (RFC 8446 4.1.2, RFC 6066 3, RFC 7301 3.1)
struct ClientHello {
  std::string_view server_name;           // empty: none; lower case is not made
  std::vector<std::string_view> alpn;     // at most 16
  uint16_t version = 0;                   // the highest that is offered, 0x0304 for TLS 1.3
  const char* error = "";                 // with kBad
};
// A ClientHello may be spread over several records: `buffer` holds its body then, and the views point
// into it or into `data`; valid as long as both. At most kMaxClientHello bytes are looked at.
inline constexpr size_t kMaxClientHello = 16 * 1024;
Peek peek_client_hello(std::span<const uint8_t> data, std::vector<uint8_t>* buffer, ClientHello* out);

// ---- HTTP: kYes with the version: 20 for the HTTP/2 preface, else 10 or 11 (RFC 9112 3, RFC 9113 3.4).
// A request line is recognised by a method of letters, a space, a target and " HTTP/1.": kMore until
// then, kNo as soon as a byte does not fit or the method is longer than any that is known (24).
Peek peek_http(std::span<const uint8_t> data, int* version);

}  // namespace edgemesh::proxy
