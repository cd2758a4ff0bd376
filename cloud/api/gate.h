// Gate: who sends a request (also on whose behalf: Impersonate-*, as `kubectl --as`), and whether
// it may. The answers are those of kube-apiserver. Threads: the API's loop.
#pragma once

#include <memory>
#include <string>

#include "cloud/api/auth.h"
#include "cloud/api/error.h"
#include "cloud/api/request.h"

namespace edgemesh::cloud {

struct Caller {
  ApiUser user;
  std::shared_ptr<const ApiUser> real;  // who impersonates `user`; null: nobody
};

class Gate {
 public:
  Gate(std::shared_ptr<Authenticator> authenticator, std::shared_ptr<Authorizer> authorizer)
      : authenticator_(std::move(authenticator)), authorizer_(std::move(authorizer)) {}

  // 401: no valid credentials; 403: may not act as that user.
  ApiResult<Caller> identify(const http::Request& request) const;
  // `reason`, unless it is null: why it is allowed, or not.
  ApiResult<void> check(const ApiUser& user, const ApiAttributes& what,
                        std::string* reason = nullptr) const;
  const Authenticator& authenticator() const { return *authenticator_; }
  const Authorizer& authorizer() const { return *authorizer_; }

 private:
  ApiResult<void> check_impersonation(const ApiUser& real, const ApiUser& wanted) const;

  std::shared_ptr<Authenticator> authenticator_;
  std::shared_ptr<Authorizer> authorizer_;
};

// `path` null: not about a resource; `verb` is the method's name then, in lower case.
ApiAttributes attributes_of(const http::Request& request, const ResourcePath* path,
                            const std::string& verb);
// 'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace
// "default"'
ApiError forbidden_error(const ApiUser& user, const ApiAttributes& what, const std::string& reason);

}  // namespace edgemesh::cloud
