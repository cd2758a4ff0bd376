// What edgemesh-cloud is told: its configuration file (YAML, strict; configs/cloud.yaml shows all
// keys). The program's flags override it. Thread-safe.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/audit.h"
#include "cloud/controllers/controllers.h"
#include "core/base/log.h"
#include "core/base/net_addr.h"
#include "core/config/reader.h"

namespace edgemesh::cloud {

std::vector<Cidr> default_service_cidrs();  // 10.96.0.0/12

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

  std::vector<SockAddr> api_listen;  // of the embedded Kubernetes API, port 6443; empty: as hub_listen
  std::string kubeconfig;            // set: a real kube-apiserver instead
  controllers::ControllerOptions controllers;  // of the embedded API; a real one has its own
  bool service_accounts = true;  // "default" and kube-root-ca.crt in each namespace
  bool clean_tokens = true;      // bootstrap tokens that have expired

  AuditOptions audit;                          // of the embedded API

  std::string trust_domain = "edgemesh.local";
  std::string cluster_domain = "cluster.local";
  std::vector<Cidr> service_cidrs = default_service_cidrs();
  config::HostPort turn_server;  // coturn; empty: no relay
  std::string turn_secret_file;
  std::chrono::seconds turn_lifetime = std::chrono::hours(24);
  std::vector<config::HostPort> stun;
};

// Reads the file over the defaults. Errors name the file, the key, the value and what is allowed.
Result<CloudConfig> load_cloud_config(const std::string& path);
Result<CloudConfig> parse_cloud_config(std::string_view text, std::string name);
// Checks what flags and file together say (a relay needs a secret, ...).
Result<> validate(const CloudConfig& config);

}  // namespace edgemesh::cloud
