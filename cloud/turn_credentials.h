// Short-lived credentials of a TURN server that shares a secret with us (coturn's use-auth-secret):
//   username = "<expiry, Unix seconds>:<node>", password = base64(HMAC-SHA1(secret, username))
// Nothing is stored on either side. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace edgemesh::cloud {

struct TurnCredentials {
  std::string username;
  std::string password;
  int64_t expires = 0;  // Unix seconds
};
TurnCredentials make_turn_credentials(std::string_view secret, std::string_view node,
                                      int64_t expires);

}  // namespace edgemesh::cloud
