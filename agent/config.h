// The agent's configuration: agent.yaml over these defaults. Strict: see core/config/reader.h.
// configs/agent.yaml shows every key. Flags of the program override what is read here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/log.h"
#include "core/base/net_addr.h"
#include "core/config/reader.h"

namespace edgemesh::agent {

inline constexpr const char* kDefaultConfigFile = "/etc/edgemesh/agent.yaml";
inline constexpr const char* kDefaultStateDir = "/var/lib/edgemesh";

enum class CaptureMode { kAuto, kTproxy, kRedirect };

struct AgentConfig {
  std::string node_name;  // nodeName; empty: the host's name (set by load_config)
  std::string zone;       // preferred over other zones when an endpoint is picked
  std::string state_dir = kDefaultStateDir;

  struct Cloud {
    config::HostPort hub;        // host:10000
    std::vector<config::HostPort> more_hubs;  // of other replicas
    config::HostPort bootstrap;  // host:10002; unset: the hub's host
  } cloud;

  struct Dns {
    bool enable = true;
    IpAddr listen_address = IpAddr::v4(0xa9fe6010);  // 169.254.96.16, port 53
    std::optional<IpAddr> listen_address_v6;         // a second one, for clients with IPv6 alone
    std::vector<SockAddr> upstreams;                 // empty: those of /etc/resolv.conf
    std::string cluster_domain;                      // empty: what the cloud says
    std::vector<IpAddr> addresses() const;           // both, as far as they are set
  } dns;

  struct Capture {
    bool enable = true;
    CaptureMode mode = CaptureMode::kAuto;
    std::vector<Cidr> service_cidrs;  // empty: what the cloud says
  } capture;

  struct Proxy {
    int workers = 1;  // 0: one a processor
    Duration connect_timeout = std::chrono::seconds(5);
    Duration idle_timeout = std::chrono::hours(1);
    size_t max_connections = 16'384;  // of one worker
    Duration drain_timeout = std::chrono::seconds(10);
    bool access_log = true;
    // Service ports whose name or appProtocol says HTTP are balanced by request, not by connection.
    bool http = false;
    std::string config;  // file with listeners, routes, clusters (as edgemesh-proxy's); empty: none
  } proxy;

  struct P2p {
    bool enable = true;
    bool direct = true;  // TCP 15008
    SockAddr direct_listen{IpAddr::any(true), 15008};  // [::]: IPv4 too
    bool ice = true;
    std::vector<config::HostPort> stun_servers;  // netcheck asks them, too
  } p2p;

  // Pods on a container runtime; on with modules.edged.enable.
  struct Edged {
    std::string runtime = "unix:///run/containerd/containerd.sock";  // of CRI v1
    std::string root_dir;                                            // empty: <stateDir>/pods
    std::string log_dir = "/var/log/pods";
    std::string cgroup_parent = "/kubepods";
    std::optional<IpAddr> node_ip;  // none: the address on the way to the cloud
  } edged;

  // The Kubernetes API on loopback, of what this node holds; on with modules.metaServer.enable.
  struct MetaServer {
    SockAddr listen{IpAddr::loopback(), 10550};  // KubeEdge's port
  } meta_server;

  struct Admin {
    SockAddr listen{IpAddr::loopback(), 15000};
  } admin;

  struct Log {
    log::Level level = log::Level::kInfo;
    log::Format format = log::Format::kText;
    std::map<std::string, log::Level> components;
  } log;

  struct Module {
    bool enable = true;
  };
  std::map<std::string, Module> modules;
  bool module_enabled(const std::string& name) const;
};

// Names that `modules` may have.
std::vector<std::string> module_names();

// Errors are one line: file, line, key path, value, what is allowed. `needs_cloud` false: cloud.hub
// may be missing (a file before the node joined).
Result<AgentConfig> load_config(const std::string& path, bool needs_cloud = true);
Result<AgentConfig> parse_config(std::string_view text, const std::string& name,
                                 bool needs_cloud = true);

// Kubernetes node name: lower case DNS-1123 subdomain, at most 253 characters.
Result<> check_node_name(std::string_view name);
// The host's name, lower case, up to the first dot; an error when it is no node name.
Result<std::string> host_node_name();

// The file that `join` writes: node name, cloud, state dir; all else is left at its default.
std::string render_join_config(const AgentConfig& config);
// For /config_dump: JSON text with every value in use. There are no secrets in it.
std::string config_json(const AgentConfig& config);

}  // namespace edgemesh::agent
