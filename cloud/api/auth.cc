#include "cloud/api/auth.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>

namespace edgemesh::cloud {

bool ApiUser::in_group(std::string_view group) const {
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

namespace {

constexpr std::string_view kMasters = "system:masters";
constexpr std::string_view kNodes = "system:nodes";
constexpr std::string_view kNodePrefix = "system:node:";

class StandardAuthenticator final : public Authenticator {
 public:
  StandardAuthenticator(std::map<std::string, ApiUser> tokens, NodeCertificateCheck check)
      : tokens_(std::move(tokens)), check_(std::move(check)) {}

  std::optional<ApiUser> authenticate(const http::Request& request) const override {
    if (request.peer != nullptr && !request.peer->expired && !request.peer->common_name.empty()) {
      ApiUser user;
      user.name = request.peer->common_name;
      if (check_ && user.name.starts_with(kNodePrefix) &&
          !check_(user.name.substr(kNodePrefix.size()), request.peer->not_before)) {
        return std::nullopt;
      }
      user.groups = request.peer->organizations;
      const std::string& first = request.peer->organization;
      if (!first.empty() && !user.in_group(first)) user.groups.push_back(first);
      return user;
    }
    std::string_view value = request.headers.get_or("Authorization", "");
    constexpr std::string_view kScheme = "Bearer ";
    if (value.size() <= kScheme.size() ||
        !http::equals_ignore_case(value.substr(0, kScheme.size()), kScheme)) {
      return std::nullopt;
    }
    value.remove_prefix(kScheme.size());
    const ApiUser* found = nullptr;
    // All are compared, each in constant time: the time tells nothing about the tokens.
    for (const auto& [token, user] : tokens_) {
      bool same = token.size() == value.size() &&
                  CRYPTO_memcmp(token.data(), value.data(), token.size()) == 0;
      if (same) found = &user;
    }
    return found != nullptr ? std::optional<ApiUser>(*found) : std::nullopt;
  }

 private:
  std::map<std::string, ApiUser> tokens_;
  NodeCertificateCheck check_;
};

bool reads(const ApiAttributes& what) {
  return what.verb == "get" || what.verb == "list" || what.verb == "watch";
}

bool node_may(std::string_view node, const ApiAttributes& what) {
  std::string resource = what.group.empty() ? what.resource : what.resource + "." + what.group;
  if (resource == "services" || resource == "endpointslices.discovery.k8s.io" ||
      resource == "namespaces") {
    return reads(what);
  }
  bool writes_one = what.verb == "get" || what.verb == "update" || what.verb == "patch";
  if (resource == "nodes") {
    if (what.name == node && writes_one) return true;
    // A field selector narrows a list; beside a name in the path it changes nothing.
    return what.name.empty() && reads(what) && what.field_name == node;
  }
  if (resource == "leases.coordination.k8s.io") {
    return what.ns == "kube-node-lease" && what.name == node && writes_one;
  }
  return false;
}

class StandardAuthorizer final : public Authorizer {
 public:
  bool allows(const ApiUser& user, const ApiAttributes& what) const override {
    if (user.in_group(kMasters)) return true;
    if (what.resource.empty()) {
      constexpr std::array<std::string_view, 5> kOpen = {"/api", "/apis", "/openapi", "/version",
                                                         "/healthz"};
      bool open = std::any_of(kOpen.begin(), kOpen.end(), [&](std::string_view prefix) {
        return what.path == prefix || what.path.starts_with(std::string(prefix) + "/");
      });
      return open && what.verb == "get";
    }
    if (!user.in_group(kNodes) || !user.name.starts_with(kNodePrefix)) return false;
    return node_may(std::string_view(user.name).substr(kNodePrefix.size()), what);
  }
};

}  // namespace

std::shared_ptr<Authenticator> make_authenticator(std::map<std::string, ApiUser> tokens,
                                                  NodeCertificateCheck check) {
  return std::make_shared<StandardAuthenticator>(std::move(tokens), std::move(check));
}

std::shared_ptr<Authorizer> make_authorizer() {
  return std::make_shared<StandardAuthorizer>();
}

}  // namespace edgemesh::cloud
