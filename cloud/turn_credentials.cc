#include "cloud/turn_credentials.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "core/base/result.h"
#include "core/tls/x509.h"

namespace edgemesh::cloud {

TurnCredentials make_turn_credentials(std::string_view secret, std::string_view node,
                                      int64_t expires) {
  TurnCredentials out;
  out.expires = expires;
  out.username = fmt::format("{}:{}", expires, node);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  HMAC(EVP_sha1(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(out.username.data()),  // NOLINT
       out.username.size(), digest, &length);
  out.password = tls::base64_encode({reinterpret_cast<char*>(digest), length});  // NOLINT
  return out;
}

}  // namespace edgemesh::cloud
