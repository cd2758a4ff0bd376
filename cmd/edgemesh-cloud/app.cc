#include "cmd/edgemesh-cloud/app.h"

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "cmd/edgemesh-cloud/addresses.h"
#include "core/base/log.h"
#include "core/base/version.h"

namespace edgemesh::cmd {
namespace {

using Json = nlohmann::json;

constexpr uint16_t kHubPort = 10000;
constexpr uint16_t kBootstrapPort = 10002;
constexpr uint16_t kApiPort = 6443;
constexpr Duration kStopLimit = std::chrono::seconds(3);
constexpr Duration kLeaseInterval = std::chrono::seconds(10);

std::string bracketed(const std::string& host) {
  const auto ip = IpAddr::parse(host);
  return ip && ip->is_v6() ? "[" + host + "]" : host;
}

// As which programs in pods know the embedded API.
std::vector<std::string> in_cluster_names(const cloud::CloudConfig& config) {
  if (!config.kubeconfig.empty()) return {};
  std::vector<std::string> out{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
                               "kubernetes.default.svc." + config.cluster_domain};
  if (!config.service_cidrs.empty())
    out.push_back(cloud::kubernetes_service_ip(config.service_cidrs.front()).to_string());
  return out;
}

Json node_json(const cloud::NodeStatus& status) {
  return {{"node", status.node},
          {"address", status.address},
          {"connectedSince", status.connected_since},
          {"rttMicros", status.rtt_us < 0 ? Json() : Json(status.rtt_us)},
          {"messagesIn", status.messages_in},
          {"messagesOut", status.messages_out},
          {"bytesIn", status.bytes_in},
          {"bytesOut", status.bytes_out},
          {"queuedBytes", status.queued_bytes}};
}

}  // namespace

App::App(io::Loop& loop, cloud::CloudConfig config)
    : loop_(loop),
      config_(std::move(config)),
      token_timer_(loop,
                   [this] {
                     const auto ok = write_join_token();
                     if (!ok) EM_LOG(kError, "cloud", "{}", ok.error().message);
                   }),
      stop_timer_(loop, [this] { loop_.stop(); }) {}

Result<std::unique_ptr<App>> App::create(io::Loop& loop, cloud::CloudConfig config) {
  std::unique_ptr<App> app(new App(loop, std::move(config)));
  EM_TRY_VOID(app->open());
  return app;
}

Result<> App::open() {
  EM_TRY_VOID(cloud::make_dirs(config_.state_dir));
  auto lock = cloud::FileLock::try_acquire(config_.state_dir + "/lock");
  if (!lock) {
    if (lock.error().code == ErrorCode::kPermissionDenied) {
      return fail(lock.error().code, "{}: run edgemesh-cloud as the owner of {}, mostly root, or choose another --state-dir",
                  lock.error().message, config_.state_dir);
    }
    if (lock.error().code != ErrorCode::kUnavailable) return fail(lock.error());
    return fail(ErrorCode::kUnavailable,
                "another edgemesh-cloud uses {}; stop it or choose another --state-dir",
                config_.state_dir);
  }
  lock_.emplace(std::move(*lock));
  EM_TRY(ca_, cloud::Ca::open({.state_dir = config_.state_dir,
                               .trust_domain = config_.trust_domain,
                               .node_lifetime = config_.node_certificate_lifetime}));
  if (config_.advertise.empty()) config_.advertise = interface_addresses();
  if (config_.hub_listen.empty()) config_.hub_listen = listen_everywhere(kHubPort);
  if (config_.bootstrap_listen.empty()) {
    config_.bootstrap_listen = listen_everywhere(kBootstrapPort);
  }
  if (config_.api_listen.empty()) config_.api_listen = listen_everywhere(kApiPort);
  std::vector<std::string> names = config_.advertise;
  for (const std::string& name :
       {std::string("localhost"), std::string("127.0.0.1"), std::string("::1"), host_name()}) {
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  for (std::string& name : in_cluster_names(config_)) names.push_back(std::move(name));
  EM_TRY(const tls::KeyAndCert server, ca_->issue_server(names));
  EM_TRY(backend_, Backend::create(loop_, config_, *ca_, server));
  EM_TRY(revocations_,
         cloud::Revocations::open(loop_, backend_->client(),
                                  {.path = config_.state_dir + "/revoked-certificates",
                                   .lifetime = config_.node_certificate_lifetime},
                                  registry_));
  backend_->check_certificates([this](const std::string& node, int64_t not_before) {
    return revocations_->check(node, not_before);
  });
  if (!backend_->embedded()) open_elector();
  EM_TRY_VOID(open_hub(server));
  EM_TRY_VOID(open_controllers());
  if (backend_->embedded()) open_streams();
  if (!backend_->embedded()) EM_TRY_VOID(open_siblings());
  EM_TRY_VOID(open_bootstrap(server));
  EM_TRY_VOID(open_admin());
  if (backend_->embedded()) EM_TRY_VOID(write_kubeconfig());
  return write_join_token();
}

Result<> App::open_hub(const tls::KeyAndCert& server) {
  cloud::HubOptions options;
  options.listen = config_.hub_listen;
  options.cert_pem = server.cert_pem;
  options.key_pem = server.key_pem;
  options.ca_pem = ca_->cert_pem();
  options.max_nodes = config_.max_nodes;
  options.check_certificate = [this](const std::string& node, int64_t not_before) {
    return revocations_->check(node, not_before);
  };
  EM_TRY(hub_, cloud::Hub::create(loop_, std::move(options), registry_));
  return {};
}

// Of several clouds on one kube-apiserver one looks after the nodes that are connected to none.
void App::open_elector() {
  kube::LeaderElector::Options options;
  options.name = "edgemesh-cloud";
  options.identity = host_name() + "_" + channel::new_id();
  obs::Gauge& leads = registry_.gauge("edgemesh_cloud_leader",
                                      "1 while this cloud leads those on the same kube-apiserver.");
  kube::LeaderElector::Handlers handlers;
  handlers.on_leads = [&leads] { leads.set(1); };
  handlers.on_follows = [&leads] { leads.set(0); };
  elector_ = std::make_unique<kube::LeaderElector>(loop_, backend_->client(), std::move(options),
                                                   std::move(handlers));
}

Result<> App::open_controllers() {
  cloud::MeshOptions mesh;
  mesh.trust_domain = config_.trust_domain;
  mesh.cluster_domain = config_.cluster_domain;
  mesh.service_cidrs.clear();
  for (const Cidr& cidr : config_.service_cidrs) mesh.service_cidrs.push_back(cidr.to_string());
  for (const auto& server : config_.stun) mesh.stun.push_back(server.to_string());
  mesh.log_path = config_.state_dir + "/mesh-log";
  if (!config_.turn_server.empty()) {
    auto read = cloud::read_file(config_.turn_secret_file, 4096);
    if (!read) return fail(read.error().with_context("mesh.turn.secretFile (--turn-secret-file)"));
    std::string secret = std::move(*read);
    while (!secret.empty() && std::isspace(static_cast<unsigned char>(secret.back())) != 0) {
      secret.pop_back();
    }
    if (secret.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "{} is empty: put the secret of the TURN server in it", config_.turn_secret_file);
    }
    mesh.turn = {.host = config_.turn_server.host,
                 .port = config_.turn_server.port,
                 .secret = std::move(secret),
                 .lifetime = config_.turn_lifetime};
  }
  kube::Client& client = backend_->client();
  mesh_ = std::make_unique<cloud::MeshController>(loop_, client, *hub_, std::move(mesh), registry_);
  cloud::NodeOptions nodes;
  if (!backend_->embedded()) nodes.lease_interval = kLeaseInterval;
  nodes.judges_all = backend_->embedded();
  const auto nodes_may_create = [this](const std::string& node) {
    const auto not_before = hub_->not_before(node);
    return not_before && revocations_->may_create(node, *not_before);
  };
  nodes.may_create = nodes_may_create;
  nodes.leads = [this] { return elector_ == nullptr || elector_->leads(); };
  nodes_ = std::make_unique<cloud::NodeController>(loop_, client, std::move(nodes));
  rendezvous_ =
      std::make_unique<cloud::Rendezvous>(loop_, *hub_, cloud::RendezvousOptions{}, registry_);
  cloud::UpstreamOptions upstream;
  upstream.may_create = nodes_may_create;
  upstream_ = std::make_unique<cloud::Upstream>(client, *hub_, std::move(upstream));
  edge_ = std::make_unique<cloud::EdgeController>(loop_, client, *hub_,
                                                  cloud::EdgeController::Options{}, registry_);
  dynamic_ = std::make_unique<cloud::DynamicController>(*hub_, backend_->calls_as_node());
  dispatcher_ = std::make_unique<cloud::Dispatcher>(
      cloud::Dispatcher::Parts{*hub_, *mesh_, *nodes_, *rendezvous_, *upstream_,
                               backend_->ca_pem(), edge_.get(), dynamic_.get()},
      registry_);
  hub_->set_events(dispatcher_.get());
  if (backend_->embedded()) {
    controllers_ = std::make_unique<cloud::controllers::Controllers>(loop_, client, config_.controllers);
  }
  mesh_->set_revoked(revocations_->list());
  revocations_->set_on_change([this] {
    hub_->close_refused();
    backend_->end_refused();
    if (node_streams_ != nullptr) {
      node_streams_->end_refused([this](const std::string& node, int64_t not_before) {
        return revocations_->check(node, not_before);
      });
    }
    mesh_->set_revoked(revocations_->list());
  });
  return {};
}

// Nodes that signal each other may be connected to different clouds.
Result<> App::open_siblings() {
  EM_TRY(const tls::KeyAndCert own, ca_->issue_cloud());
  tls::ContextOptions context;
  context.cert_pem = own.cert_pem;
  context.key_pem = own.key_pem;
  context.ca_pem = ca_->cert_pem();
  context.alpn = {"http/1.1"};
  cloud::Siblings::Options options;
  EM_TRY(options.tls, tls::Context::client(context));
  options.host = host_name();
  options.identity = host_name() + "_" + channel::new_id();
  options.hub = fmt::format("{}:{}", bracketed(config_.advertise.empty() ? host_name() : config_.advertise.front()),
                            hub_->local_addr().port);
  siblings_ = std::make_unique<cloud::Siblings>(loop_, backend_->client(), std::move(options), registry_);
  rendezvous_->set_elsewhere([this](const auto& from, const auto& to, std::string content, auto done) {
    siblings_->pass(from, to, std::move(content), std::move(done));
  });
  hub_->set_take_signal([this](const auto& from, const auto& to, const auto& content) {
    return rendezvous_->deliver(from, to, content);
  });
  return {};
}

// kubectl logs, exec and the like: from the API to the nodes.
void App::open_streams() {
  node_streams_ = std::make_unique<cloud::NodeStreams>(
      loop_, *hub_, cloud::NodeStreams::Options(), registry_);
  hub_->set_take_streams([this](const std::string& node, int64_t not_before, auto stream) {
    node_streams_->take(node, not_before, std::move(stream));
  });
  cloud::EmbeddedApi& api = *backend_->api();
  pod_streams_ = std::make_unique<cloud::PodStreams>(
      loop_, *node_streams_,
      [&api](const std::string& ns, const std::string& name) {
        const auto found = api.store().get(*api.core().registry().find(kube::kPods), ns, name);
        return found == nullptr ? std::string() : found->text;
      },
      cloud::PodStreams::Options());
  usage_ = std::make_unique<cloud::UsageMetrics>(loop_, *node_streams_, *hub_, api.store(),
                                                 api.core().registry(),
                                                 cloud::UsageMetrics::Options());
  backend_->serve_from_nodes(
      [this](const http::Request& request, const auto& writer, const auto& path) {
        return pod_streams_->handle(request, writer, path);
      },
      [this](const http::Request& request, const auto& writer, const auto& path) {
        usage_->handle(request, writer, path);
      });
}

Result<> App::open_bootstrap(const tls::KeyAndCert& server) {
  cloud::BootstrapOptions options;
  options.listen = config_.bootstrap_listen;
  options.cert_pem = server.cert_pem;
  options.key_pem = server.key_pem;
  options.node_known = [this](const std::string& node) { return hub_->connected(node); };
  options.check_certificate = [this](const std::string& node, int64_t not_before) {
    return revocations_->check(node, not_before);
  };
  options.not_before_floor = [this](const std::string& node, bool replaces) {
    return revocations_->not_before_floor(node, replaces);
  };
  claims_ = std::make_unique<cloud::NodeClaims>(backend_->client(), *hub_, loop_.clock());
  options.claim = [this](cloud::NodeClaim claim, cloud::NodeClaims::Done done) {
    claims_->claim(std::move(claim), std::move(done));
  };
  EM_TRY(bootstrap_, cloud::Bootstrap::create(loop_, *ca_, std::move(options), registry_));
  return {};
}

Result<> App::open_admin() {
  EM_TRY(admin_, AdminServer::create(loop_, config_.admin_listen, registry_, [this] { return not_ready(); }));
  admin_->get_json("/nodes", [this] {
    Json nodes = Json::array();
    for (const auto& status : hub_->nodes()) nodes.push_back(node_json(status));
    return nodes;
  });
  return {};
}

std::string App::not_ready() const {
  if (stopping_) return "stopping";
  return mesh_->ready() ? "" : "services and endpoint slices are not read yet";
}

Result<> App::write_kubeconfig() const {
  EM_TRY(const tls::KeyAndCert admin, ca_->issue_admin());
  const std::string host = config_.advertise.empty() ? "127.0.0.1" : config_.advertise.front();
  // JSON is YAML.
  const Json config{
      {"apiVersion", "v1"},
      {"kind", "Config"},
      {"current-context", "edgemesh"},
      {"clusters",
       {{{"name", "edgemesh"},
         {"cluster",
          {{"server", fmt::format("https://{}:{}", bracketed(host), config_.api_listen.front().port)},
           {"certificate-authority-data", tls::base64_encode(ca_->cert_pem())}}}}}},
      {"contexts",
       {{{"name", "edgemesh"}, {"context", {{"cluster", "edgemesh"}, {"user", "admin"}}}}}},
      {"users",
       {{{"name", "admin"},
         {"user",
          {{"client-certificate-data", tls::base64_encode(admin.cert_pem)},
           {"client-key-data", tls::base64_encode(admin.key_pem)}}}}}}};
  return cloud::write_file(config_.state_dir + "/admin.kubeconfig", config.dump(2) + "\n", 0600);
}

Result<> App::write_join_token() const {
  return cloud::write_file(config_.state_dir + "/join-token", new_token() + "\n", 0600);
}

Result<> App::run() {
  EM_TRY(const auto term, io::SignalWatch::start(loop_, SIGTERM, [this] { stop(); }));
  EM_TRY(const auto interrupt, io::SignalWatch::start(loop_, SIGINT, [this] { stop(); }));
  mesh_->start();
  nodes_->start();
  edge_->start();
  if (controllers_ != nullptr) controllers_->start();
  if (elector_ != nullptr) elector_->start();
  if (siblings_ != nullptr) siblings_->start();
  revocations_->start();
  // A token in the file is always good for most of its life.
  token_timer_.start_repeating(std::chrono::duration_cast<Duration>(config_.token_lifetime) / 4);
  EM_LOG(kInfo, "cloud", "edgemesh-cloud {} runs: hub {}, bootstrap {}, admin {}, {}", kVersion,
         hub_->local_addr().to_string(), bootstrap_->local_addr().to_string(),
         admin_->local_addr().to_string(), backend_->description());
  EM_LOG(kInfo, "cloud", "a token for 'edgemesh join' is in {}/join-token", config_.state_dir);
  loop_.run();
  return {};
}

void App::stop() {
  // The second signal does not wait.
  if (std::exchange(stopping_, true)) return loop_.stop();
  EM_LOG(kInfo, "cloud", "stopping");
  if (pod_streams_ != nullptr) pod_streams_->drain();
  hub_->drain();
  bootstrap_->drain();
  backend_->drain();
  const Duration rest =
      hub_->closing() == 0 ? Duration(std::chrono::milliseconds(50)) : Duration(kStopLimit);
  if (elector_ == nullptr) return stop_timer_.start(rest);
  // The next one shall not have to wait for the lease to run out.
  stop_timer_.start(kStopLimit);
  elector_->stop([this, rest] { stop_timer_.start(rest); });
  siblings_->stop([] {});
}

}  // namespace edgemesh::cmd
