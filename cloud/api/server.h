// ApiServer: the HTTP face of the embedded Kubernetes API, for an http::Server's handler. Generic
// over the resource registry: discovery, OpenAPI, get, list, watch, create, update, patch, delete,
// tables. Threads: the loop given.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cloud/api/audit.h"
#include "cloud/api/auth.h"
#include "cloud/api/bootstrap_tokens.h"
#include "cloud/api/core.h"
#include "cloud/api/default_accounts.h"
#include "cloud/api/discovery.h"
#include "cloud/api/kubernetes_service.h"
#include "cloud/api/rbac_defaults.h"
#include "cloud/api/request.h"
#include "cloud/api/service_tokens.h"
#include "core/http/server.h"

namespace edgemesh::cloud {

struct ApiServerOptions {
  // Sees requests to subresources first, after authorization: for what leads to a node (log, exec,
  // ...) or needs keys (token). True: it has taken the request and answers it.
  std::function<bool(const http::Request&, const std::shared_ptr<http::ResponseWriter>&,
                     const ResourcePath&)>
      on_subresource;
  // Answers get and list of resources that are computed, after authorization.
  std::function<void(const http::Request&, const std::shared_ptr<http::ResponseWriter>&,
                     const ResourcePath&)>
      on_computed;
  std::shared_ptr<Audit> audit;                  // null: none is kept
  std::shared_ptr<Authenticator> authenticator;  // null: make_authenticator()
  // By path: what is answered there to who may get it, besides discovery.
  std::map<std::string, DiscoveryAnswer> documents;
  // Null: only system:masters and nodes may do anything; EmbeddedApi makes one with RBAC.
  std::shared_ptr<Authorizer> authorizer;
  Duration bookmark_every = std::chrono::minutes(1);
  // Of a watch that does not say how long: between this and twice this.
  Duration watch_timeout = std::chrono::minutes(30);
  size_t max_watches = 20000;
  // A watcher that takes nothing while this much waits for it is cut off; it will list again.
  size_t max_watch_queue = 8 << 20;
};

class ApiServer {
 public:
  static std::unique_ptr<ApiServer> create(io::Loop& loop, ApiCore& core, ApiServerOptions options);
  virtual ~ApiServer() = default;  // ends the watches
  virtual void handle(http::Request request, std::shared_ptr<http::ResponseWriter> writer) = 0;
  virtual void drain() = 0;  // ends the watches in order, refuses new ones
  // Ends the watches of those whose client certificate the authenticator takes no more.
  virtual void end_refused() = 0;
  virtual size_t watches() const = 0;
};

// The whole embedded API in one object: store, rules, HTTP handler, in-process client.
class EmbeddedApi {
 public:
  struct Options {
    ApiStore::Options store;  // .path: the SQLite file
    ApiCore::Options core;
    ApiServerOptions server;
    ServiceTokens::Options tokens;
    std::string jwks_uri;  // where others reach /openid/v1/jwks
    // Every namespace gets a service account "default" and, unless `root_ca_pem` is empty, a
    // ConfigMap with it.
    bool default_accounts = false;
    bool clean_tokens = true;  // bootstrap tokens that have expired are deleted
    std::string root_ca_pem;
    // None: there is no Service "kubernetes".
    std::optional<KubernetesService::Options> kubernetes_service;
  };
  static Result<std::unique_ptr<EmbeddedApi>> open(io::Loop& loop, Options options);
  ~EmbeddedApi();
  EmbeddedApi(const EmbeddedApi&) = delete;
  EmbeddedApi& operator=(const EmbeddedApi&) = delete;

  kube::Client& client() { return *client_; }
  ApiServer& server() { return *server_; }
  ApiStore& store() { return *store_; }
  ApiCore& core() { return *core_; }

 private:
  EmbeddedApi() = default;
  ResourceRegistry registry_;
  std::unique_ptr<ApiStore> store_;
  std::unique_ptr<ApiCore> core_;
  std::unique_ptr<RbacDefaults> rbac_defaults_;
  std::unique_ptr<DefaultAccounts> accounts_;
  std::unique_ptr<KubernetesService> kubernetes_service_;
  std::unique_ptr<ServiceTokens> tokens_;
  std::unique_ptr<BootstrapTokens> bootstrap_tokens_;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<ApiServer> server_;
};

}  // namespace edgemesh::cloud
