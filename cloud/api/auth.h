// Who asks the API, and what they may do. Both are seams: tokens come in through Authenticator,
// RBAC and the rules for nodes through Authorizer. Threads: the API's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/http/message.h"

namespace edgemesh::cloud {

struct RbacRule;

inline constexpr std::string_view kMastersGroup = "system:masters";  // may do everything
inline constexpr std::string_view kAuthenticatedGroup = "system:authenticated";
inline constexpr std::string_view kUnauthenticatedGroup = "system:unauthenticated";
inline constexpr std::string_view kAnonymousUser = "system:anonymous";

struct ApiUser {
  std::string name;
  std::vector<std::string> groups;
  std::string uid = {};
  std::map<std::string, std::vector<std::string>> extra = {};
  bool in_group(std::string_view group) const;
};

// "system:serviceaccount:<namespace>:<name>", and back: {namespace, name}.
std::string service_account_user(std::string_view ns, std::string_view name);
std::optional<std::pair<std::string, std::string>> service_account_of(std::string_view user);
std::vector<std::string> service_account_groups(std::string_view ns);
// The node of "system:node:<name>" in system:nodes; empty: it is none.
std::string_view node_of(const ApiUser& user);

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // nullopt: credentials that are not valid (401). Without any: system:anonymous. Everyone else is
  // in system:authenticated.
  virtual std::optional<ApiUser> authenticate(const http::Request& request) const = 0;
  // Of a bearer token alone, that is for one of `audiences` (empty: for this API). `fitting`: which
  // of them; stays empty for tokens that are for none in particular.
  virtual std::optional<ApiUser> authenticate_token(std::string_view token,
                                                    const std::vector<std::string>& audiences,
                                                    std::vector<std::string>* fitting) const = 0;
};

// Whether a certificate of the node with this notBefore still counts, as Revocations::check.
using NodeCertificateCheck = std::function<Result<>(const std::string& node, int64_t not_before)>;

// A verified client certificate (CN the user, each O a group), or a bearer token out of `tokens`. A
// node's certificate that `check` refuses is none; `check` may be empty.
std::shared_ptr<Authenticator> make_authenticator(std::map<std::string, ApiUser> tokens = {},
                                                  NodeCertificateCheck check = {});

// As Authenticator::authenticate_token.
using TokenCheck = std::function<std::optional<ApiUser>(std::string_view token,
                                                        const std::vector<std::string>& audiences,
                                                        std::vector<std::string>* fitting)>;
// Bearer tokens that `first` does not know may be known to one of `checks`.
std::shared_ptr<Authenticator> with_tokens(std::shared_ptr<Authenticator> first,
                                           std::vector<TokenCheck> checks);

// What is asked. For other paths than resources `resource` is empty and `path` is set.
struct ApiAttributes {
  std::string verb;  // get, list, watch, create, update, patch, delete, deletecollection
  // `name` of a list or watch: the metadata.name that a field selector asks for.
  std::string group, version, resource, subresource, ns, name;
  std::string path;
  std::string node_name = {};  // spec.nodeName that a field selector of pods asks for
};

class Authorizer {
 public:
  virtual ~Authorizer() = default;
  // `reason`, unless it is null: why, in words for a person; may stay empty.
  virtual bool allows(const ApiUser& user, const ApiAttributes& what,
                      std::string* reason) const = 0;
  bool allows(const ApiUser& user, const ApiAttributes& what) const {
    return allows(user, what, nullptr);
  }
  // Adds what the user may do in the namespace, as far as it can be told by rules; `problem`: why
  // that is not all.
  virtual void add_rules(const ApiUser& user, std::string_view ns, std::vector<RbacRule>* rules,
                         std::string* problem) const;
};

// Allows what any of `others` allows; system:masters may do everything.
std::shared_ptr<Authorizer> make_authorizer(std::vector<std::shared_ptr<Authorizer>> others);

}  // namespace edgemesh::cloud
