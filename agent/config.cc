#include "agent/config.h"

#include "core/config/reader.h"

namespace edgemesh::agent {

namespace {

using config::Document;
using config::Reader;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

void read_cloud(Reader cloud, AgentConfig::Cloud& out) {
  config::HostPort hub, bootstrap;
  cloud.read("hub", &hub, 10000);
  cloud.read("bootstrap", &bootstrap, 10002);
  if (!hub.empty()) out.hub = hub.to_string();
  if (!bootstrap.empty()) out.bootstrap = bootstrap.to_string();
}

void read_dns(Reader dns, AgentConfig::Dns& out) {
  dns.read("enable", &out.enable);
  dns.read("listen", &out.listen, 53);
  dns.read("upstreams", &out.upstreams, 53);
  dns.read("clusterDomain", &out.cluster_domain);
}

void read_capture(Reader capture, AgentConfig::Capture& out) {
  capture.read("enable", &out.enable);
  capture.read_enum("mode", &out.mode,
                    {{"auto", CaptureMode::kAuto},
                     {"tproxy", CaptureMode::kTproxy},
                     {"redirect", CaptureMode::kRedirect}});
  capture.read("serviceCidrs", &out.service_cidrs);
  capture.read("tproxyPort", &out.tproxy_port, 1);
  capture.read("redirectPort", &out.redirect_port, 1);
}

void read_proxy(Reader proxy, AgentConfig::Proxy& out) {
  proxy.read("workers", &out.workers, 1, 64);
  proxy.read("connectTimeout", &out.connect_timeout, milliseconds(10), minutes(5));
  proxy.read("idleTimeout", &out.idle_timeout, seconds(1), hours(24 * 30));
  proxy.read("drainTimeout", &out.drain_timeout, milliseconds(0), minutes(10));
  proxy.read("maxConnections", &out.max_connections, 1, 1'000'000);
  proxy.read("accessLog", &out.access_log);
}

void read_p2p(Reader p2p, AgentConfig::P2p& out) {
  p2p.read("enable", &out.enable);
  p2p.read("direct", &out.direct_enable);
  p2p.read("directListen", &out.direct_listen, 15008);
  p2p.read("advertise", &out.advertise, 15008);
  p2p.read("trustDomain", &out.trust_domain);
}

void read_log(Reader reader, AgentConfig& out) {
  reader.read_enum("level", &out.log_level,
                   {{"error", log::Level::kError},
                    {"warn", log::Level::kWarn},
                    {"info", log::Level::kInfo},
                    {"debug", log::Level::kDebug},
                    {"trace", log::Level::kTrace}});
  reader.read_enum("format", &out.log_format,
                   {{"text", log::Format::kText}, {"json", log::Format::kJson}});
}

Result<AgentConfig> read_config(Document& document) {
  AgentConfig out;
  Reader root = document.root();
  root.read("node", &out.node);
  root.read("zone", &out.zone);
  root.read("stateDir", &out.state_dir);
  read_cloud(root.section("cloud"), out.cloud);
  read_dns(root.section("dns"), out.dns);
  read_capture(root.section("capture"), out.capture);
  read_proxy(root.section("proxy"), out.proxy);
  read_p2p(root.section("p2p"), out.p2p);
  Reader admin = root.section("admin");
  admin.read("listen", &out.admin_listen, 15000);
  if (!out.admin_listen.ip.is_loopback())
    admin.reject("listen", fmt::format("'{}' is not allowed (want a loopback address: the admin endpoint "
                                       "has no login)",
                                       out.admin_listen.to_string()));
  read_log(root.section("log"), out);
  EM_TRY_VOID(document.finish());
  return out;
}

}  // namespace

Result<AgentConfig> load_config(const std::string& path) {
  EM_TRY(auto document, Document::from_file(path));
  return read_config(document);
}

Result<AgentConfig> parse_config(std::string_view text, std::string name) {
  EM_TRY(auto document, Document::from_text(text, std::move(name)));
  return read_config(document);
}

std::string render_config(const AgentConfig& config) {
  return fmt::format(
      "# Written by `edgemesh join`. Everything that is not here has its default; all keys are explained\n"
      "# in configs/agent.yaml of the source.\n"
      "node: {}\nstateDir: {}\ncloud:\n  hub: '{}'\n  bootstrap: '{}'\n",
      config.node, config.state_dir, config.cloud.hub, config.cloud.bootstrap);
}

}  // namespace edgemesh::agent
