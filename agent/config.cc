#include "agent/config.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace edgemesh::agent {

namespace {

using config::Reader;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr uint16_t kHubPort = 10000;
constexpr uint16_t kBootstrapPort = 10002;
constexpr size_t kMaxNodeName = 253;

void read_level(Reader& reader, std::string_view key, log::Level* out) {
  reader.read_enum(key, out,
                   {{"error", log::Level::kError},
                    {"warn", log::Level::kWarn},
                    {"info", log::Level::kInfo},
                    {"debug", log::Level::kDebug},
                    {"trace", log::Level::kTrace}});
}

std::string_view name_of(CaptureMode mode) {
  switch (mode) {
    case CaptureMode::kAuto: return "auto";
    case CaptureMode::kTproxy: return "tproxy";
    case CaptureMode::kRedirect: return "redirect";
  }
  return "";
}

void read_cloud(Reader reader, AgentConfig::Cloud& out, bool needed) {
  if (needed) reader.require("hub");
  reader.read("hub", &out.hub, kHubPort);
  reader.read("moreHubs", &out.more_hubs, kHubPort);
  reader.read("bootstrap", &out.bootstrap, kBootstrapPort);
}

void read_dns(Reader reader, AgentConfig::Dns& out) {
  reader.read("enable", &out.enable);
  reader.read("listenAddress", &out.listen_address);
  std::string second;
  reader.read("listenAddressV6", &second);
  reader.read("upstreams", &out.upstreams, 53);
  reader.read("clusterDomain", &out.cluster_domain);
  if (out.listen_address.is_unspecified())
    reader.reject("listenAddress",
                  "the wildcard address is not allowed (want one address of this machine's)");
  if (second.empty()) return;
  auto address = IpAddr::parse(second);
  if (!address || !address->is_v6() || address->is_unspecified() || address->is_link_local())
    reader.reject("listenAddressV6",
                  fmt::format("'{}' is not allowed (want an IPv6 address for this machine, for "
                              "example fd00:96::16, not link-local)",
                              second));
  else
    out.listen_address_v6 = *address;
}

void read_capture(Reader reader, AgentConfig::Capture& out) {
  reader.read("enable", &out.enable);
  reader.read_enum("mode", &out.mode,
                   {{"auto", CaptureMode::kAuto},
                    {"tproxy", CaptureMode::kTproxy},
                    {"redirect", CaptureMode::kRedirect}});
  reader.read("serviceCidrs", &out.service_cidrs);
  for (const Cidr& cidr : out.service_cidrs) {
    // A typing error here would take the whole machine off the network.
    if (cidr.bits < kMinServiceCidrBits)
      reader.reject("serviceCidrs", fmt::format("'{}' is too wide: it would capture all traffic (want /{} or longer)",
                                                cidr.to_string(), kMinServiceCidrBits));
  }
}

void read_proxy(Reader reader, AgentConfig::Proxy& out) {
  reader.read("workers", &out.workers, 0, 256);
  reader.read("connectTimeout", &out.connect_timeout, milliseconds(10), minutes(10));
  reader.read("idleTimeout", &out.idle_timeout, Duration::zero(), hours(24 * 365));
  reader.read("maxConnections", &out.max_connections, 1, 10'000'000);
  reader.read("drainTimeout", &out.drain_timeout, Duration::zero(), hours(24));
  reader.read("accessLog", &out.access_log);
  reader.read("http", &out.http);
  reader.read("config", &out.config);
}

void read_p2p(Reader reader, AgentConfig::P2p& out) {
  reader.read("enable", &out.enable);
  reader.read("direct", &out.direct);
  reader.read("directListen", &out.direct_listen);
  reader.read("ice", &out.ice);
  reader.read("stunServers", &out.stun_servers, 3478);
}

void read_edged(Reader reader, AgentConfig::Edged& out) {
  reader.read("runtime", &out.runtime);
  reader.read("rootDir", &out.root_dir);
  reader.read("logDir", &out.log_dir);
  reader.read("cgroupParent", &out.cgroup_parent);
  std::string ip;
  reader.read("nodeIp", &ip);
  const auto absolute = [&](const char* key, const std::string& path) {
    if (!path.empty() && path.front() == '/') return;
    reader.reject(key, fmt::format("'{}' is not allowed (want an absolute path)", path));
  };
  if (out.runtime.rfind("unix:///", 0) != 0)
    reader.reject("runtime",
                  fmt::format("'{}' is not allowed (want unix:///path/of/the/socket)", out.runtime));
  if (!out.root_dir.empty()) absolute("rootDir", out.root_dir);
  absolute("logDir", out.log_dir);
  absolute("cgroupParent", out.cgroup_parent);
  if (ip.empty()) return;
  const auto address = IpAddr::parse(ip);
  if (!address || address->is_unspecified())
    reader.reject("nodeIp", fmt::format("'{}' is not allowed (want an address of this machine)", ip));
  else
    out.node_ip = *address;
}

void read_meta_server(Reader reader, AgentConfig::MetaServer& out) {
  reader.read("listen", &out.listen, 10550);
  if (out.listen.ip.is_loopback()) return;
  reader.reject("listen",
                fmt::format("'{}' is not allowed (want a loopback address: the API has no login, "
                            "and shows the secrets of this node's pods)",
                            out.listen.to_string()));
}

void read_log(Reader reader, AgentConfig::Log& out) {
  read_level(reader, "level", &out.level);
  reader.read_enum("format", &out.format,
                   {{"text", log::Format::kText}, {"json", log::Format::kJson}});
  Reader components = reader.section("components");
  for (const std::string& name : reader.keys("components")) {
    log::Level level = out.level;
    read_level(components, name, &level);
    out.components[name] = level;
  }
}

void read_modules(Reader root, std::map<std::string, AgentConfig::Module>& out) {
  Reader modules = root.section("modules");
  out["edged"].enable = false;  // it needs a container runtime
  out["metaServer"].enable = false;
  for (const std::string& name : module_names()) {
    Reader one = modules.section(name);
    one.read("enable", &out[name].enable);
  }
  if (out["edged"].enable && !out["metamanager"].enable)
    modules.section("edged").reject(
        "enable", "it runs the pods that metamanager keeps, which is switched off");
}

Result<AgentConfig> read_all(config::Document& document, bool needs_cloud) {
  AgentConfig out;
  Reader root = document.root();
  root.read("nodeName", &out.node_name);
  if (!out.node_name.empty()) {
    if (auto ok = check_node_name(out.node_name); !ok) root.reject("nodeName", ok.error().message);
  }
  root.read("zone", &out.zone);
  root.read("stateDir", &out.state_dir);
  if (out.state_dir.empty() || out.state_dir.front() != '/')
    root.reject("stateDir",
                fmt::format("'{}' is not allowed (want an absolute path)", out.state_dir));
  if (needs_cloud) root.require("cloud");
  read_cloud(root.section("cloud"), out.cloud, needs_cloud && root.has("cloud"));
  read_dns(root.section("dns"), out.dns);
  read_capture(root.section("capture"), out.capture);
  read_proxy(root.section("proxy"), out.proxy);
  read_p2p(root.section("p2p"), out.p2p);
  read_edged(root.section("edged"), out.edged);
  read_meta_server(root.section("metaServer"), out.meta_server);
  Reader admin = root.section("admin");
  admin.read("listen", &out.admin.listen, 15000);
  if (!out.admin.listen.ip.is_loopback()) {
    admin.reject(
        "listen",
        fmt::format("'{}' is not allowed (want a loopback address: the endpoint has no login)",
                    out.admin.listen.to_string()));
  }
  read_log(root.section("log"), out.log);
  read_modules(root, out.modules);
  EM_TRY_VOID(document.finish());
  return out;
}

}  // namespace

std::vector<std::string> module_names() {
  return {"edgehub", "mesh", "metamanager", "edged", "metaServer"};
}

std::vector<IpAddr> AgentConfig::Dns::addresses() const {
  std::vector<IpAddr> all{listen_address};
  if (listen_address_v6) all.push_back(*listen_address_v6);
  return all;
}

bool AgentConfig::module_enabled(const std::string& name) const {
  const auto it = modules.find(name);
  if (it != modules.end()) return it->second.enable;
  return name != "edged" && name != "metaServer";
}

Result<AgentConfig> load_config(const std::string& path, bool needs_cloud) {
  EM_TRY(auto document, config::Document::from_file(path));
  return read_all(document, needs_cloud);
}

Result<AgentConfig> parse_config(std::string_view text, const std::string& name, bool needs_cloud) {
  EM_TRY(auto document, config::Document::from_text(text, name));
  return read_all(document, needs_cloud);
}

Result<> check_node_name(std::string_view name) {
  const auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool ok = !name.empty() && name.size() <= kMaxNodeName;
  char before = '.';
  for (const char c : name) {
    if (c == '.')
      ok = ok && alphanumeric(before);
    else
      ok = ok && (alphanumeric(c) || (c == '-' && before != '.'));
    before = c;
  }
  if (ok && alphanumeric(before)) return {};
  return fail(ErrorCode::kInvalidArgument,
              "'{}' is no node name (want lower-case letters, digits, '-' and '.', at most {}, "
              "a letter or digit at both ends)",
              name.substr(0, 80), kMaxNodeName);
}

Result<std::string> host_node_name() {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) return fail_errno("gethostname", errno);
  std::string name(host);
  name = name.substr(0, name.find('.'));
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (auto ok = check_node_name(name); !ok)
    return fail(ok.error().with_context("the host's name cannot be taken, give one with --node"));
  return name;
}

std::string render_join_config(const AgentConfig& config) {
  // JSON's quoting is valid in YAML: no value can break out of its line.
  const auto quoted = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  return fmt::format(
      "# Written by 'edgemesh join'. What is not here has its default; configs/agent.yaml shows "
      "all.\n"
      "nodeName: {}\n"
      "stateDir: {}\n"
      "cloud:\n"
      "  hub: {}\n"
      "  bootstrap: {}\n",
      quoted(config.node_name), quoted(config.state_dir), quoted(config.cloud.hub.to_string()),
      quoted(config.cloud.bootstrap.to_string()));
}

std::string config_json(const AgentConfig& config) {
  using Json = nlohmann::json;
  const auto texts = [](const auto& list) {
    Json out = Json::array();
    for (const auto& item : list) out.push_back(item.to_string());
    return out;
  };
  const auto optional = [](const config::HostPort& at) { return at.empty() ? "" : at.to_string(); };
  Json modules = Json::object();
  for (const std::string& name : module_names())
    modules[name] = {{"enable", config.module_enabled(name)}};
  Json components = Json::object();
  for (const auto& [name, level] : config.log.components) components[name] = log::to_string(level);
  const Json out = {
      {"nodeName", config.node_name},
      {"zone", config.zone},
      {"stateDir", config.state_dir},
      {"cloud",
       {{"hub", optional(config.cloud.hub)},
        {"moreHubs", texts(config.cloud.more_hubs)},
        {"bootstrap", optional(config.cloud.bootstrap)}}},
      {"dns",
       {{"enable", config.dns.enable},
        {"listenAddress", config.dns.listen_address.to_string()},
        {"listenAddressV6",
         config.dns.listen_address_v6 ? config.dns.listen_address_v6->to_string() : ""},
        {"upstreams", texts(config.dns.upstreams)},
        {"clusterDomain", config.dns.cluster_domain}}},
      {"capture",
       {{"enable", config.capture.enable},
        {"mode", name_of(config.capture.mode)},
        {"serviceCidrs", texts(config.capture.service_cidrs)}}},
      {"proxy",
       {{"workers", config.proxy.workers},
        {"connectTimeout", config::format_duration(config.proxy.connect_timeout)},
        {"idleTimeout", config::format_duration(config.proxy.idle_timeout)},
        {"maxConnections", config.proxy.max_connections},
        {"drainTimeout", config::format_duration(config.proxy.drain_timeout)},
        {"accessLog", config.proxy.access_log},
        {"http", config.proxy.http},
        {"config", config.proxy.config}}},
      {"p2p",
       {{"enable", config.p2p.enable},
        {"direct", config.p2p.direct},
        {"directListen", config.p2p.direct_listen.to_string()},
        {"ice", config.p2p.ice},
        {"stunServers", texts(config.p2p.stun_servers)}}},
      {"edged",
       {{"runtime", config.edged.runtime},
        {"rootDir", config.edged.root_dir},
        {"logDir", config.edged.log_dir},
        {"cgroupParent", config.edged.cgroup_parent},
        {"nodeIp", config.edged.node_ip ? config.edged.node_ip->to_string() : ""}}},
      {"metaServer", {{"listen", config.meta_server.listen.to_string()}}},
      {"admin", {{"listen", config.admin.listen.to_string()}}},
      {"log",
       {{"level", log::to_string(config.log.level)},
        {"format", config.log.format == log::Format::kJson ? "json" : "text"},
        {"components", components}}},
      {"modules", modules}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace edgemesh::agent
