#include "cloud/token.h"

#include <nlohmann/json.hpp>

#include "core/tls/x509.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxJwtBytes = 4096;

}  // namespace

std::string make_jwt(std::string_view key, int64_t expires, const TokenRights& rights) {
  const std::string head = tls::base64url_encode(R"({"alg":"HS256","typ":"JWT"})");
  Json claims{{"exp", expires}};
  if (!rights.node.empty()) claims["node"] = rights.node;
  if (!rights.node.empty() && rights.replace) claims["replace"] = true;
  const std::string text = head + "." + tls::base64url_encode(claims.dump());
  return text + "." + tls::base64url_encode(tls::hmac_sha256(key, text));
}

Result<TokenRights> verify_jwt(std::string_view jwt, std::string_view key, int64_t now) {
  const size_t first = jwt.find('.');
  const size_t last = jwt.rfind('.');
  if (jwt.size() > kMaxJwtBytes || first == std::string_view::npos || first == last) {
    return fail(ErrorCode::kUnauthenticated, "token is malformed");
  }
  const auto signature = tls::base64url_decode(jwt.substr(last + 1));
  if (!signature ||
      !tls::constant_time_equal(*signature, tls::hmac_sha256(key, jwt.substr(0, last)))) {
    return fail(ErrorCode::kUnauthenticated, "token signature is invalid");
  }
  const auto head_text = tls::base64url_decode(jwt.substr(0, first));
  const auto claims_text = tls::base64url_decode(jwt.substr(first + 1, last - first - 1));
  if (!head_text || !claims_text) return fail(ErrorCode::kUnauthenticated, "token is malformed");
  const Json head = Json::parse(*head_text, nullptr, false);
  const Json claims = Json::parse(*claims_text, nullptr, false);
  if (!head.is_object() || head.value("alg", Json()) != "HS256" || !claims.is_object()) {
    return fail(ErrorCode::kUnauthenticated, "token is malformed");
  }
  const Json expires = claims.value("exp", Json());
  if (!expires.is_number()) return fail(ErrorCode::kUnauthenticated, "token has no expiry");
  if (expires.get<double>() <= static_cast<double>(now)) {
    return fail(ErrorCode::kUnauthenticated,
                "token is expired; make a new one with 'edgemesh-cloud token create'");
  }
  const Json node = claims.value("node", Json(""));
  if (!node.is_string()) return fail(ErrorCode::kUnauthenticated, "token is malformed");
  TokenRights rights{.node = node.get<std::string>()};
  rights.replace = !rights.node.empty() && claims.value("replace", Json()) == true;
  return rights;
}

}  // namespace edgemesh::cloud
