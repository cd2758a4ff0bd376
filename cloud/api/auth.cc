#include "cloud/api/auth.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

namespace edgemesh::cloud {

bool ApiUser::in_group(std::string_view group) const {
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

namespace {

constexpr std::string_view kNodes = "system:nodes";
constexpr std::string_view kNodePrefix = "system:node:";
constexpr std::string_view kAccountPrefix = "system:serviceaccount:";

}  // namespace

std::string service_account_user(std::string_view ns, std::string_view name) {
  return fmt::format("{}{}:{}", kAccountPrefix, ns, name);
}

std::optional<std::pair<std::string, std::string>> service_account_of(std::string_view user) {
  if (!user.starts_with(kAccountPrefix)) return std::nullopt;
  user.remove_prefix(kAccountPrefix.size());
  const size_t colon = user.find(':');
  if (colon == 0 || colon == std::string_view::npos || colon + 1 == user.size())
    return std::nullopt;
  return std::pair(std::string(user.substr(0, colon)), std::string(user.substr(colon + 1)));
}

std::vector<std::string> service_account_groups(std::string_view ns) {
  return {"system:serviceaccounts", fmt::format("system:serviceaccounts:{}", ns)};
}

std::string_view node_of(const ApiUser& user) {
  if (!user.name.starts_with(kNodePrefix) || !user.in_group(kNodes)) return {};
  return std::string_view(user.name).substr(kNodePrefix.size());
}

namespace {

bool has_certificate(const http::Request& request) {
  return request.peer != nullptr && !request.peer->expired && !request.peer->common_name.empty();
}

// Empty: none.
std::string_view bearer_token(const http::Request& request) {
  const std::string_view value = request.headers.get_or("Authorization", "");
  constexpr std::string_view kScheme = "Bearer ";
  if (!http::equals_ignore_case(value.substr(0, kScheme.size()), kScheme)) return {};
  return value.substr(kScheme.size());
}

class StandardAuthenticator final : public Authenticator {
 public:
  StandardAuthenticator(std::map<std::string, ApiUser> tokens, NodeCertificateCheck check)
      : tokens_(std::move(tokens)), check_(std::move(check)) {}

  std::optional<ApiUser> authenticate(const http::Request& request) const override {
    if (has_certificate(request)) {
      ApiUser user;
      user.name = request.peer->common_name;
      if (check_ && user.name.starts_with(kNodePrefix) &&
          !check_(user.name.substr(kNodePrefix.size()), request.peer->not_before)) {
        return std::nullopt;
      }
      user.groups = request.peer->organizations;
      const std::string& first = request.peer->organization;
      if (!first.empty() && !user.in_group(first)) user.groups.push_back(first);
      return authenticated(std::move(user));
    }
    if (request.headers.get_or("Authorization", "").empty()) {
      return ApiUser{std::string(kAnonymousUser), {std::string(kUnauthenticatedGroup)}};
    }
    const std::string_view token = bearer_token(request);
    return token.empty() ? std::nullopt : authenticate_token(token, {}, nullptr);
  }

  std::optional<ApiUser> authenticate_token(std::string_view value, const std::vector<std::string>&,
                                            std::vector<std::string>*) const override {
    const ApiUser* found = nullptr;
    // All are compared, each in constant time: the time tells nothing about the tokens.
    for (const auto& [token, user] : tokens_) {
      bool same = token.size() == value.size() &&
                  CRYPTO_memcmp(token.data(), value.data(), token.size()) == 0;
      if (same) found = &user;
    }
    if (found == nullptr) return std::nullopt;
    return authenticated(*found);
  }

 private:
  static ApiUser authenticated(ApiUser user) {
    if (!user.in_group(kAuthenticatedGroup)) user.groups.emplace_back(kAuthenticatedGroup);
    return user;
  }

  std::map<std::string, ApiUser> tokens_;
  NodeCertificateCheck check_;
};

class MoreTokens final : public Authenticator {
 public:
  MoreTokens(std::shared_ptr<Authenticator> first, std::vector<TokenCheck> checks)
      : first_(std::move(first)), checks_(std::move(checks)) {}
  std::optional<ApiUser> authenticate(const http::Request& request) const override {
    const std::string_view token = has_certificate(request) ? "" : bearer_token(request);
    return token.empty() ? first_->authenticate(request) : authenticate_token(token, {}, nullptr);
  }
  std::optional<ApiUser> authenticate_token(std::string_view token,
                                            const std::vector<std::string>& audiences,
                                            std::vector<std::string>* fitting) const override {
    if (auto user = first_->authenticate_token(token, audiences, fitting)) return user;
    for (const TokenCheck& check : checks_) {
      if (auto user = check(token, audiences, fitting)) return user;
    }
    return std::nullopt;
  }

 private:
  std::shared_ptr<Authenticator> first_;
  std::vector<TokenCheck> checks_;
};

class UnionAuthorizer final : public Authorizer {
 public:
  explicit UnionAuthorizer(std::vector<std::shared_ptr<Authorizer>> others)
      : others_(std::move(others)) {}
  bool allows(const ApiUser& user, const ApiAttributes& what, std::string* reason) const override {
    if (user.in_group(kMastersGroup)) return true;
    std::string all, one;
    for (const auto& authorizer : others_) {
      if (authorizer->allows(user, what, reason != nullptr ? &one : nullptr)) {
        if (reason != nullptr) *reason = std::move(one);
        return true;
      }
      if (!one.empty()) all += (all.empty() ? "" : ", ") + std::exchange(one, {});
    }
    if (reason != nullptr) *reason = std::move(all);
    return false;
  }
  void add_rules(const ApiUser& user, std::string_view ns, std::vector<RbacRule>* rules,
                 std::string* problem) const override {
    for (const auto& authorizer : others_) authorizer->add_rules(user, ns, rules, problem);
  }

 private:
  std::vector<std::shared_ptr<Authorizer>> others_;
};

}  // namespace

void Authorizer::add_rules(const ApiUser&, std::string_view, std::vector<RbacRule>*,
                           std::string*) const {}

std::shared_ptr<Authenticator> make_authenticator(std::map<std::string, ApiUser> tokens,
                                                  NodeCertificateCheck check) {
  return std::make_shared<StandardAuthenticator>(std::move(tokens), std::move(check));
}

std::shared_ptr<Authenticator> with_tokens(std::shared_ptr<Authenticator> first,
                                           std::vector<TokenCheck> checks) {
  return std::make_shared<MoreTokens>(std::move(first), std::move(checks));
}

std::shared_ptr<Authorizer> make_authorizer(std::vector<std::shared_ptr<Authorizer>> others) {
  return std::make_shared<UnionAuthorizer>(std::move(others));
}

}  // namespace edgemesh::cloud
