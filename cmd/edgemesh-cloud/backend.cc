#include "cmd/edgemesh-cloud/backend.h"

#include <limits>

#include "cloud/api/in_process.h"
#include "cloud/files.h"
#include "cloud/kube_config.h"
#include "cloud/kube_http_client.h"
#include "cmd/edgemesh-cloud/addresses.h"

namespace edgemesh::cmd {
namespace {

// As one of the node's own connections: the hub has checked its certificate.
http::Request request_of(cloud::NodeCall call) {
  http::Request out;
  out.method = std::move(call.method);
  out.target = std::move(call.target);
  out.body = std::move(call.body);
  if (!call.content_type.empty()) out.headers.set("Content-Type", call.content_type);
  out.headers.set("User-Agent", "edgemesh-agent");
  out.secure = true;
  auto peer = std::make_shared<tls::PeerIdentity>();
  peer->common_name = "system:node:" + call.node;
  peer->organizations = {"system:nodes"};
  peer->not_before = std::numeric_limits<int64_t>::max();
  out.peer = std::move(peer);
  return out;
}

// The key that signs the tokens of service accounts: made at the first start, kept as the CA's is.
Result<std::string> service_account_key(const std::string& state_dir) {
  const std::string path = state_dir + "/service-account.key";
  auto kept = cloud::read_file(path);
  if (kept || kept.error().code != ErrorCode::kNotFound) return kept;
  EM_TRY(std::string key, tls::generate_key_pem());
  EM_TRY_VOID(cloud::write_file(path, key, 0600));
  return key;
}

std::string api_url(const cloud::CloudConfig& config) {
  const std::string host = config.advertise.empty() ? "127.0.0.1" : config.advertise.front();
  const auto ip = IpAddr::parse(host);
  return fmt::format("https://{}:{}", ip && ip->is_v6() ? "[" + host + "]" : host,
                     config.api_listen.front().port);
}

// Where nodes reach the API: the address that it listens on, or else the first one that is
// advertised. None: nowhere, it is for this machine alone.
std::optional<SockAddr> api_endpoint(const cloud::CloudConfig& config) {
  const SockAddr& listen = config.api_listen.front();
  if (listen.ip.is_loopback()) return std::nullopt;
  if (!listen.ip.is_unspecified()) return listen;
  for (const auto& list : {config.advertise, interface_addresses()}) {
    for (const std::string& name : list) {
      if (const auto ip = IpAddr::parse(name)) return SockAddr{*ip, listen.port};
    }
  }
  return std::nullopt;
}

class Embedded final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> create(io::Loop& loop, const cloud::CloudConfig& config,
                                                 const cloud::Ca& ca,
                                                 const tls::KeyAndCert& server) {
    cloud::EmbeddedApi::Options options;
    options.store.path = config.state_dir + "/api.db";
    options.core.service_cidrs = config.service_cidrs;
    options.core.mount_tokens = true;
    EM_TRY(options.tokens.key_pem, service_account_key(config.state_dir));
    options.tokens.issuer = "https://kubernetes.default.svc." + config.cluster_domain;
    options.default_accounts = config.service_accounts;
    options.clean_tokens = config.clean_tokens;
    if (!config.audit.file.empty()) {
      EM_TRY(options.server.audit, cloud::Audit::open(loop.clock(), config.audit));
    }
    options.root_ca_pem = ca.cert_pem();
    if (const auto endpoint = api_endpoint(config); endpoint && !config.service_cidrs.empty()) {
      options.kubernetes_service = {
          cloud::kubernetes_service_ip(config.service_cidrs.front()), *endpoint};
    }
    options.jwks_uri = api_url(config) + "/openid/v1/jwks";
    auto self = std::make_unique<Embedded>();
    self->ca_pem_ = ca.cert_pem();
    options.server.authenticator =
        cloud::make_authenticator({}, [raw = self.get()](const std::string& node, int64_t not_before) {
          return raw->check_ ? raw->check_(node, not_before) : Result<>();
        });
    options.server.on_subresource = [raw = self.get()](const http::Request& request,
                                                       const auto& writer, const auto& path) {
      return raw->streams_ && raw->streams_(request, writer, path);
    };
    options.server.on_computed = [raw = self.get()](const http::Request& request,
                                                    const auto& writer, const auto& path) {
      if (raw->computed_) raw->computed_(request, writer, path);
    };
    EM_TRY(self->api_, cloud::EmbeddedApi::open(loop, std::move(options)));
    tls::ContextOptions tls;
    tls.cert_pem = server.cert_pem;
    tls.key_pem = server.key_pem;
    tls.ca_pem = ca.cert_pem();
    tls.verify = tls::ContextOptions::kOptional;
    tls.alpn = {"http/1.1"};
    http::ServerOptions listen;
    EM_TRY(listen.tls, tls::Context::server(tls));
    listen.name = "api";
    cloud::ApiServer* handler = &self->api_->server();
    for (const SockAddr& address : config.api_listen) {
      listen.listen = address;
      EM_TRY(auto listener,
             http::Server::create(loop, listen, [handler](http::Request request, auto writer) {
               handler->handle(std::move(request), std::move(writer));
             }));
      self->servers_.push_back(std::move(listener));
    }
    return std::unique_ptr<Backend>(std::move(self));
  }

  kube::Client& client() override { return api_->client(); }
  std::string ca_pem() const override { return ca_pem_; }
  std::string description() const override {
    return "Kubernetes API " + servers_.front()->local_addr().to_string();
  }
  bool embedded() const override { return true; }
  cloud::CallAsNode calls_as_node() override {
    return [this](cloud::NodeCall call, auto done) {
      cloud::call_in_process(api_->server(), request_of(std::move(call)),
                             [done = std::move(done)](http::Response response) {
                               done(cloud::NodeCallAnswer{response.status,
                                                          std::move(response.body)});
                             });
    };
  }
  void drain() override {
    api_->server().drain();
    for (const auto& server : servers_) server->drain();
  }
  void check_certificates(cloud::NodeCertificateCheck check) override { check_ = std::move(check); }
  void end_refused() override { api_->server().end_refused(); }
  cloud::EmbeddedApi* api() override { return api_.get(); }
  void serve_from_nodes(StreamHandler streams, ComputedHandler computed) override {
    streams_ = std::move(streams);
    computed_ = std::move(computed);
  }

 private:
  std::string ca_pem_;
  cloud::NodeCertificateCheck check_;
  StreamHandler streams_;
  ComputedHandler computed_;
  std::unique_ptr<cloud::EmbeddedApi> api_;
  std::vector<std::unique_ptr<http::Server>> servers_;
};

class External final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> create(io::Loop& loop, const std::string& kubeconfig) {
    auto self = std::make_unique<External>();
    EM_TRY(const cloud::KubeConfig config, cloud::load_kubeconfig(kubeconfig));
    self->ca_pem_ = config.ca_pem;
    self->server_ = config.server;
    EM_TRY(self->client_, cloud::make_http_client(loop, config));
    return std::unique_ptr<Backend>(std::move(self));
  }

  kube::Client& client() override { return *client_; }
  std::string ca_pem() const override { return ca_pem_; }
  std::string description() const override { return "kube-apiserver " + server_; }
  bool embedded() const override { return false; }
  cloud::CallAsNode calls_as_node() override { return cloud::calls_as_node(*client_); }
  void drain() override {}
  void check_certificates(cloud::NodeCertificateCheck) override {}
  void end_refused() override {}

 private:
  std::string ca_pem_, server_;
  std::unique_ptr<kube::Client> client_;
};

}  // namespace

Result<std::unique_ptr<Backend>> Backend::create(io::Loop& loop, const cloud::CloudConfig& config,
                                                 const cloud::Ca& ca,
                                                 const tls::KeyAndCert& server) {
  if (!config.kubeconfig.empty()) return External::create(loop, config.kubeconfig);
  return Embedded::create(loop, config, ca, server);
}

}  // namespace edgemesh::cmd
