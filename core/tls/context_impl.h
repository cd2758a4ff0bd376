// What a Context holds. For core/tls only.
#pragma once

#include <string>

#include "core/tls/context.h"
#include "core/tls/openssl_util.h"

namespace edgemesh::tls {

struct Context::Impl {
  SslCtxPtr ssl;
  bool server = false;
  bool verifies = false;  // asks for and verifies the peer's certificate
  Duration handshake_timeout{};
  std::string alpn_wire;  // length-prefixed names (RFC 7301 3.1)
};

}  // namespace edgemesh::tls
