// App: builds and wires everything of the agent, and nothing else. main() and tests use it alike.
// Threads: main loop; the proxy's workers and the ICE thread are behind their modules.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/bootstrap.h"
#include "agent/config.h"
#include "agent/hub_client.h"
#include "agent/mesh_module.h"
#include "agent/meta/meta_module.h"
#include "agent/metastore.h"
#include "cmd/edgemesh-agent/admin.h"
#include "cmd/edgemesh-agent/pods.h"
#include "cmd/local_api/local_api.h"
#include "core/bus/bus.h"
#include "core/io/resolver.h"
#include "core/obs/metrics.h"
#include "discovery/dns_server.h"
#include "discovery/registry.h"
#include "p2p/mesh.h"
#include "p2p/netcheck.h"
#include "p2p/netlink_watch.h"
#include "proxy/capture.h"
#include "proxy/listener/config_file.h"
#include "proxy/listener/l7_proxy.h"
#include "proxy/proxy.h"

namespace edgemesh::cmd {

// SO_MARK of the agent's own traffic, which capture leaves alone.
inline constexpr uint32_t kOwnMark = 0x4d45;

class App final : private agent::MeshSink {
 public:
  // Errors are one line that says what to do.
  static Result<std::unique_ptr<App>> create(io::Loop& loop, agent::AgentConfig config);
  ~App() override;

  // Reads the file that proxy.config names again; what was before stays on an error.
  void reload(proxy::ConfigFile::Done done);
  // Takes the capture rules out, lets connections end, then stops the loop.
  void shut_down();

 private:
  App(io::Loop& loop, agent::AgentConfig config);
  Result<> open();
  Result<> open_proxy();
  Result<> open_http();
  Result<> open_telemetry(int workers);
  Result<> open_capture();
  Result<> open_dns();
  Result<> make_channel();
  void note_synced();
  Result<> open_local_api();
  Result<> open_admin();
  std::vector<Cidr> service_cidrs() const;
  std::string cluster_domain() const;
  agent::BootstrapOptions bootstrap_options() const;
  void on_renewed(const agent::Identity& identity);
  void send_node_info();
  void refresh_gauges();

  nlohmann::json status_json();
  nlohmann::json peers_json() const;
  nlohmann::json services_json();
  nlohmann::json config_json();
  std::string not_ready() const;
  using JsonDone = std::function<void(Result<nlohmann::json>)>;
  void netcheck(JsonDone done);
  void path(const std::string& node, bool open_it, JsonDone done);
  void await_path(const std::string& node, TimePoint end, JsonDone done);

  // MeshSink
  void upsert_service(const kube::Service& service) override {
    registry_.upsert_service(service);
    note_change();
  }
  void remove_service(const std::string& ns, const std::string& name) override {
    registry_.remove_service(ns, name);
    note_change();
  }
  void upsert_slice(const kube::EndpointSlice& slice) override {
    registry_.upsert_slice(slice);
    note_change();
  }
  void remove_slice(const std::string& ns, const std::string& name) override {
    registry_.remove_slice(ns, name);
    note_change();
  }
  void on_config(const agent::MeshConfig& config) override;
  void on_signal(const std::string& from_node, std::string_view json) override;
  void on_signal_error(const std::string& node, std::string_view reason) override;
  void on_synced() override { note_synced(); }
  void note_change();
  std::optional<SockAddr> api_service();

  io::Loop& loop_;
  agent::AgentConfig config_;
  TimePoint started_;
  obs::Registry metrics_;
  agent::Identity identity_;
  discovery::Registry registry_;
  std::unique_ptr<agent::Metastore> metastore_;
  std::unique_ptr<agent::HubClient> hub_;
  std::unique_ptr<agent::MeshModule> mesh_module_;
  std::unique_ptr<agent::MetaModule> meta_module_;
  std::unique_ptr<Pods> pods_;  // null: edged is off
  std::unique_ptr<bus::Bus> bus_;
  std::unique_ptr<agent::CloudCalls> cloud_calls_;
  std::unique_ptr<LocalApi> local_api_;  // null: metaServer is off
  std::unique_ptr<agent::Renewal> renewal_;
  std::shared_ptr<const proxy::model::Config> http_config_;  // as read at the start
  std::unique_ptr<proxy::Telemetry> telemetry_;
  std::unique_ptr<proxy::Proxy> proxy_;
  std::unique_ptr<io::Resolver> resolver_;  // of clusters by DNS name
  std::unique_ptr<proxy::L7Proxy> l7_;
  std::unique_ptr<proxy::ConfigFile> proxy_file_;  // null: none is configured
  std::unique_ptr<p2p::Mesh> mesh_;
  std::unique_ptr<proxy::Capture> capture_;
  std::unique_ptr<discovery::DnsServer> dns_;
  std::string dns_domain_;  // that dns_ serves
  std::unique_ptr<p2p::Netcheck> netcheck_;  // one at a time
  bool checking_ = false;
  std::unique_ptr<p2p::NetlinkWatch> addresses_;
  std::unique_ptr<AdminServer> admin_;
  io::Timer node_info_timer_;
  io::Timer trim_timer_;
  size_t changes_to_trim_ = 0;
  bool serves_ = false;  // services are known, from the disk or from the cloud
  bool shutting_down_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cmd
