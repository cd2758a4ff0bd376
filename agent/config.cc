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

// HOST:PORT whose host may be a name.
void check_host_port(Reader& reader, const char* key, const std::string& value) {
  if (value.empty()) return;
  auto colon = value.rfind(':');
  bool ok = colon != std::string::npos && colon > 0 && colon + 1 < value.size() &&
            value.find_first_not_of("0123456789", colon + 1) == std::string::npos &&
            value.size() - colon <= 6 && std::stoi(value.substr(colon + 1)) <= 65535;
  if (!ok) reader.refuse(key, fmt::format("'{}' is not allowed (want HOST:PORT)", value));
}

void read_proxy(Reader root, AgentConfig::Proxy& proxy) {
  root.read("workers", &proxy.workers, 1, 64)
      .read("connectTimeout", &proxy.connect_timeout, milliseconds(10), minutes(5))
      .read("idleTimeout", &proxy.idle_timeout, seconds(1), hours(24 * 30))
      .read("drainTimeout", &proxy.drain_timeout, milliseconds(0), minutes(10))
      .read("maxConnections", &proxy.max_connections, 1, 1'000'000)
      .read("accessLog", &proxy.access_log);
}

Result<AgentConfig> read_config(const Document& document) {
  AgentConfig out;
  Reader root(document);
  root.read("node", &out.node).read("zone", &out.zone).read("stateDir", &out.state_dir);
  Reader cloud = root.section("cloud");
  cloud.read("hub", &out.cloud.hub).read("bootstrap", &out.cloud.bootstrap);
  check_host_port(cloud, "hub", out.cloud.hub);
  check_host_port(cloud, "bootstrap", out.cloud.bootstrap);
  root.section("dns")
      .read("enable", &out.dns.enable)
      .read("listen", &out.dns.listen)
      .read("upstreams", &out.dns.upstreams, 53)
      .read("clusterDomain", &out.dns.cluster_domain);
  root.section("capture")
      .read("enable", &out.capture.enable)
      .read_enum("mode", &out.capture.mode,
                 {{"auto", CaptureMode::kAuto},
                  {"tproxy", CaptureMode::kTproxy},
                  {"redirect", CaptureMode::kRedirect}})
      .read("serviceCidrs", &out.capture.service_cidrs)
      .read("tproxyPort", &out.capture.tproxy_port, 1, 65535)
      .read("redirectPort", &out.capture.redirect_port, 1, 65535);
  read_proxy(root.section("proxy"), out.proxy);
  root.section("p2p")
      .read("enable", &out.p2p.enable)
      .read("direct", &out.p2p.direct_enable)
      .read("directListen", &out.p2p.direct_listen)
      .read("advertise", &out.p2p.advertise, 15008)
      .read("trustDomain", &out.p2p.trust_domain);
  Reader admin = root.section("admin");
  admin.read("listen", &out.admin_listen);
  if (!out.admin_listen.ip.is_loopback())
    admin.refuse("listen", fmt::format("'{}' is not allowed (want a loopback address: the admin endpoint "
                                       "has no login)", out.admin_listen.to_string()));
  root.section("log")
      .read_enum("level", &out.log_level,
                 {{"error", log::Level::kError}, {"warn", log::Level::kWarn}, {"info", log::Level::kInfo},
                  {"debug", log::Level::kDebug}, {"trace", log::Level::kTrace}})
      .read_enum("format", &out.log_format, {{"text", log::Format::kText}, {"json", log::Format::kJson}});
  EM_TRY_VOID(root.finish());
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
