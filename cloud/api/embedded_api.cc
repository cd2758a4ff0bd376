// EmbeddedApi: the parts of the embedded API, put together.
#include <nlohmann/json.hpp>

#include "cloud/api/embedded_client.h"
#include "cloud/api/node_authorizer.h"
#include "cloud/api/rbac.h"
#include "cloud/api/rbac_escalation.h"
#include "cloud/api/server.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

Result<std::unique_ptr<EmbeddedApi>> EmbeddedApi::open(io::Loop& loop, Options options) {
  std::unique_ptr<EmbeddedApi> api(new EmbeddedApi());
  EM_TRY(api->store_, ApiStore::open(loop, api->registry_, options.store));
  api->core_ = std::make_unique<ApiCore>(loop, *api->store_, api->registry_, options.core);
  api->core_->start();
  api->rbac_defaults_ = std::make_unique<RbacDefaults>(*api->core_);
  api->rbac_defaults_->start();
  if (options.default_accounts) {
    api->accounts_ = std::make_unique<DefaultAccounts>(*api->core_, options.root_ca_pem);
    api->accounts_->start();
  }
  if (options.kubernetes_service) {
    api->kubernetes_service_ =
        std::make_unique<KubernetesService>(*api->core_, *options.kubernetes_service);
    api->kubernetes_service_->start();
  }
  EM_TRY(api->tokens_,
         ServiceTokens::create(*api->store_, api->registry_, loop.clock(), options.tokens));
  ServiceTokens* tokens = api->tokens_.get();
  api->bootstrap_tokens_ = std::make_unique<BootstrapTokens>(*api->core_, options.clean_tokens);
  api->bootstrap_tokens_->start();
  api->core_->set_token_requests([tokens](const StoredObject& account, const json& body) {
    return tokens->issue(account, body);
  });
  options.server.documents = {
      {"/.well-known/openid-configuration",
       {"application/json", kube::to_text(tokens->openid_configuration(options.jwks_uri))}},
      {"/openid/v1/jwks", {"application/jwk-set+json", kube::to_text(tokens->jwks())}}};
  if (options.server.authenticator == nullptr) options.server.authenticator = make_authenticator();
  options.server.authenticator = with_tokens(
      std::move(options.server.authenticator),
      {[tokens](std::string_view token, const std::vector<std::string>& audiences,
                std::vector<std::string>* fitting) {
         return tokens->authenticate(token, audiences, fitting);
       },
       [raw = api->bootstrap_tokens_.get()](std::string_view token, const auto&, auto*) {
         return raw->authenticate(token);
       }});
  if (options.server.authorizer == nullptr) {
    auto rbac = std::make_shared<Rbac>(*api->store_, api->registry_);
    auto objects = std::make_shared<NodeObjects>(*api->store_, api->registry_);
    auto all = make_authorizer({std::make_shared<NodeAuthorizer>(objects), rbac});
    api->core_->add_admission([rbac, all, objects](const ApiCore::Admission& write) {
      if (auto good = check_node_write(*objects, write); !good) return good;
      return check_escalation(*rbac, *all, write);
    });
    options.server.authorizer = std::move(all);
  }
  api->client_ = make_embedded_client(*api->core_);
  api->server_ = ApiServer::create(loop, *api->core_, std::move(options.server));
  return api;
}

EmbeddedApi::~EmbeddedApi() {
  server_.reset();
  client_.reset();
  bootstrap_tokens_.reset();
  tokens_.reset();
  kubernetes_service_.reset();
  accounts_.reset();
  rbac_defaults_.reset();
  core_.reset();
  store_.reset();
}

}  // namespace edgemesh::cloud
