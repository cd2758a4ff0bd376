// ServiceTokens: tokens of service accounts (JWT, RFC 7519, signed ES256), as kube-apiserver's
// TokenRequest gives them: for some audiences, until some time, and while what they are bound to is
// there (the account, a pod, a node, a secret; each with its uid).
//
// Whoever holds the public key can check them: openid_configuration() and jwks() say how (OIDC
// discovery). Here, tokens that were checked are remembered, so that a request costs no signature.
// Threads: the store's loop.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cloud/api/auth.h"
#include "cloud/api/error.h"
#include "cloud/api/store.h"
#include "core/base/clock.h"
#include "core/tls/jws.h"

namespace edgemesh::cloud {

class ServiceTokens {
 public:
  struct Options {
    std::string key_pem;  // EC P-256; empty: one for this process only
    std::string issuer = "https://kubernetes.default.svc.cluster.local";
  };
  static Result<std::unique_ptr<ServiceTokens>> create(const ApiStore& store,
                                                       const ResourceRegistry& registry,
                                                       const Clock& clock, Options options);

  // Answers a TokenRequest (authentication.k8s.io/v1) for the account.
  ApiResult<nlohmann::json> issue(const StoredObject& account, nlohmann::json request) const;
  // nullopt: none of ours, or it counts no more. `audiences` and `fitting` as
  // Authenticator::authenticate_token.
  std::optional<ApiUser> authenticate(std::string_view token,
                                      const std::vector<std::string>& audiences,
                                      std::vector<std::string>* fitting);

  nlohmann::json jwks() const;
  nlohmann::json openid_configuration(const std::string& jwks_uri) const;
  const std::string& issuer() const { return options_.issuer; }

 private:
  // An object that the token needs; without a name: none.
  struct Bound {
    std::string name, uid;
  };
  struct Claims {
    std::string ns, id;
    Bound account, pod, node, secret;
    std::vector<std::string> audiences;
    int64_t not_before = 0, expires = 0;
  };

  ServiceTokens(const ApiStore& store, const ResourceRegistry& registry, const Clock& clock,
                Options options, tls::JwsSigner signer, tls::JwsKey key);
  ApiResult<void> bind(const StoredObject& account, const nlohmann::json& reference,
                       Claims* claims) const;
  std::string sign(const Claims& claims, int64_t now) const;
  // As signed by us; what it says about now is not looked at.
  std::optional<Claims> verify(std::string_view token) const;
  bool counts(const Claims& claims) const;
  bool is_there(const ResourceInfo& resource, std::string_view ns, const Bound& object) const;
  int64_t now() const;

  const ApiStore& store_;
  const ResourceInfo &accounts_, &pods_, &nodes_, &secrets_;
  const Clock& clock_;
  Options options_;
  tls::JwsSigner signer_;
  tls::JwsKey key_;
  std::string key_id_;
  std::unordered_map<std::string, Claims> known_;  // by the token's SHA-256
};

}  // namespace edgemesh::cloud
