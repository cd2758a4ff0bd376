// Tokens and key sets that a stranger made: no crash, and nothing unsigned is accepted.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/route/jwt.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh::proxy;
  const std::string_view text(reinterpret_cast<const char*>(data), size);  // NOLINT
  static const auto keys = KeySet::parse(
      R"({"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",)"
      R"("y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]})");
  edgemesh::proxy::model::JwtProvider provider;
  provider.issuer = "nobody";  // the corpus has a token that is signed rightly, by joe
  if (!keys || verify_jwt(provider, *keys, text, 0)) std::abort();
  static_cast<void>(KeySet::parse(text).has_value());
  return 0;
}
