// Who asks the API, and what they may do. Both are seams: RBAC comes in through Authorizer.
// Threads: the API's loop.
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

struct ApiUser {
  std::string name;
  std::vector<std::string> groups;
  bool in_group(std::string_view group) const;
};

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // nullopt: no valid credentials (401).
  virtual std::optional<ApiUser> authenticate(const http::Request& request) const = 0;
};

// Whether a certificate of the node with this notBefore still counts, as Revocations::check.
using NodeCertificateCheck = std::function<Result<>(const std::string& node, int64_t not_before)>;

// A verified client certificate (CN the user, each O a group), or a bearer token out of `tokens`. A node's
// certificate that `check` refuses is none; `check` may be empty.
std::shared_ptr<Authenticator> make_authenticator(std::map<std::string, ApiUser> tokens = {},
                                                  NodeCertificateCheck check = {});

// What is asked. For other paths than resources `resource` is empty and `path` is set.
struct ApiAttributes {
  std::string verb;  // get, list, watch, create, update, patch, delete, deletecollection
  std::string group, version, resource, subresource, ns, name;
  std::string path;
  std::string field_name;  // metadata.name that a field selector asks for
};

class Authorizer {
 public:
  virtual ~Authorizer() = default;
  virtual bool allows(const ApiUser& user, const ApiAttributes& what) const = 0;
};

// system:masters may do everything; system:nodes may read services, endpoint slices and namespaces,
// and read and write their own node and lease; everyone with credentials may read discovery.
std::shared_ptr<Authorizer> make_authorizer();

}  // namespace edgemesh::cloud
