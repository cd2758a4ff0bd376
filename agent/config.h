// The agent's configuration (/etc/edgemesh/agent.yaml; configs/agent.yaml explains it). Everything has
// a default but the cloud's address, which `edgemesh join` writes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/net_addr.h"

namespace edgemesh::agent {

enum class CaptureMode { kAuto, kTproxy, kRedirect };

struct AgentConfig {
  std::string node;  // empty: from the certificate
  std::string zone;
  std::string state_dir = "/var/lib/edgemesh";
  struct Cloud {
    std::string hub;        // HOST:PORT, 10000
    std::string bootstrap;  // HOST:PORT, 10002; empty: the hub's host
  } cloud;
  struct Dns {
    bool enable = true;
    SockAddr listen{IpAddr::v4(0xa9fe6010), 53};  // 169.254.96.16
    std::vector<SockAddr> upstreams;              // empty: those of /etc/resolv.conf
    std::string cluster_domain = "cluster.local";
  } dns;
  struct Capture {
    bool enable = true;
    CaptureMode mode = CaptureMode::kAuto;
    std::vector<Cidr> service_cidrs;  // empty: as the cloud says, else 10.96.0.0/12
    uint16_t tproxy_port = 15001;
    uint16_t redirect_port = 15002;
  } capture;
  struct Proxy {
    int workers = 1;
    Duration connect_timeout = std::chrono::seconds(5);
    Duration idle_timeout = std::chrono::hours(1);
    Duration drain_timeout = std::chrono::seconds(10);
    int64_t max_connections = 16384;
    bool access_log = true;
  } proxy;
  struct P2p {
    bool enable = true;
    bool direct_enable = true;
    SockAddr direct_listen{IpAddr(), 15008};
    std::vector<SockAddr> advertise;
    std::string trust_domain = "edgemesh.local";
  } p2p;
  SockAddr admin_listen{IpAddr::loopback(), 15000};
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
};

Result<AgentConfig> load_config(const std::string& path);
Result<AgentConfig> parse_config(std::string_view text, std::string name);
// The file that `edgemesh join` writes.
std::string render_config(const AgentConfig& config);

}  // namespace edgemesh::agent
