// What edgemesh-cloud is told: the configuration file (YAML, strict) and the flags that override it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "core/base/log.h"
#include "core/base/net_addr.h"

namespace edgemesh::cmd {

struct CloudConfig {
  std::string state_dir = "/var/lib/edgemesh-cloud";
  // Names and addresses under which nodes reach this machine: they go into the server certificate.
  // Empty: the addresses of its interfaces.
  std::vector<std::string> advertise;
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
  SockAddr admin_listen{IpAddr::loopback(), 15100};

  // Empty: every address, IPv4 and IPv6, with the port of KubeEdge.
  std::vector<SockAddr> hub_listen;
  size_t max_nodes = 5000;

  std::vector<SockAddr> bootstrap_listen;
  std::chrono::seconds token_lifetime = std::chrono::hours(24);
  std::chrono::seconds node_certificate_lifetime = std::chrono::hours(24 * 365);

  SockAddr api_listen{IpAddr::any(false), 6443};  // of the embedded Kubernetes API
  std::string kubeconfig;                         // set: a real kube-apiserver instead

  std::string trust_domain = "edgemesh.local";
  std::string cluster_domain = "cluster.local";
  std::vector<std::string> service_cidrs{"10.96.0.0/12"};
  std::string turn_server;  // "host:port" of coturn; empty: no relay
  std::string turn_secret_file;
  std::chrono::seconds turn_lifetime = std::chrono::hours(24);
  std::vector<std::string> stun;
};

// Reads the file over the defaults. Errors name the file, the key, the value and what is allowed.
Result<CloudConfig> read_config(const std::string& path);
// Checks what flags and file together say (a relay needs a secret, ...).
Result<> validate(const CloudConfig& config);
// "30m", "24h", "1h30m"; the error names `what`.
Result<std::chrono::seconds> parse_lifetime(const std::string& text, const char* what);
// "host:port", "1.2.3.4", "[::1]:3478"; the port may be left out.
Result<std::pair<std::string, uint16_t>> split_host_port(const std::string& text, uint16_t port);

}  // namespace edgemesh::cmd
