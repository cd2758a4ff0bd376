#include "cloud/cloud_config.h"

#include <algorithm>
#include <cctype>

namespace edgemesh::cloud {
namespace {

using config::Document;
using config::Reader;
using std::chrono::hours;
using std::chrono::minutes;

constexpr uint16_t kHubPort = 10000;
constexpr uint16_t kBootstrapPort = 10002;
constexpr uint16_t kTurnPort = 3478;
constexpr uint16_t kApiPort = 6443;

bool is_host(const std::string& text) {
  if (IpAddr::parse(text)) return true;
  return !text.empty() && text.size() <= 253 && text.front() != '-' && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.';
         });
}

void read_lifetime(Reader& reader, std::string_view key, std::chrono::seconds* out) {
  Duration value = *out;
  reader.read(key, &value, minutes(1), hours(24 * 3650));
  *out = std::chrono::duration_cast<std::chrono::seconds>(value);
}

void read_log(Reader reader, CloudConfig& out) {
  reader.read_enum("level", &out.log_level,
                   {{"error", log::Level::kError},
                    {"warn", log::Level::kWarn},
                    {"info", log::Level::kInfo},
                    {"debug", log::Level::kDebug},
                    {"trace", log::Level::kTrace}});
  reader.read_enum("format", &out.log_format,
                   {{"text", log::Format::kText}, {"json", log::Format::kJson}});
}

void read_admin(Reader admin, CloudConfig& out) {
  admin.read("listen", &out.admin_listen, 15100);
}

void read_audit(Reader audit, CloudConfig& out) {
  audit.read("file", &out.audit.file);
  audit.read_enum("level", &out.audit.level,
                  {{"Metadata", AuditLevel::kMetadata}, {"Request", AuditLevel::kRequest}});
  audit.read("maxMegabytes", &out.audit.max_megabytes, 1, 1 << 20);
  audit.read("maxFiles", &out.audit.max_files, 0, 1000);
}

void read_mesh(Reader mesh, CloudConfig& out) {
  mesh.read("trustDomain", &out.trust_domain);
  mesh.read("clusterDomain", &out.cluster_domain);
  mesh.read("serviceCidrs", &out.service_cidrs);
  mesh.read("stun", &out.stun, kTurnPort);
  Reader turn = mesh.section("turn");
  turn.read("server", &out.turn_server, kTurnPort);
  turn.read("secretFile", &out.turn_secret_file);
  read_lifetime(turn, "credentialLifetime", &out.turn_lifetime);
}

Result<CloudConfig> read(Document& document) {
  CloudConfig out;
  Reader root = document.root();
  root.read("stateDir", &out.state_dir);
  root.read("advertise", &out.advertise);
  read_log(root.section("log"), out);
  read_admin(root.section("admin"), out);
  Reader hub = root.section("hub");
  hub.read("listen", &out.hub_listen, kHubPort);
  hub.read("maxNodes", &out.max_nodes, 1, 100'000);
  Reader bootstrap = root.section("bootstrap");
  bootstrap.read("listen", &out.bootstrap_listen, kBootstrapPort);
  read_lifetime(bootstrap, "tokenLifetime", &out.token_lifetime);
  read_lifetime(bootstrap, "certificateLifetime", &out.node_certificate_lifetime);
  Reader kubernetes = root.section("kubernetes");
  if (kubernetes.has("listen")) {
    SockAddr listen;
    kubernetes.read("listen", &listen, kApiPort);
    out.api_listen = {listen};
  }
  kubernetes.read("kubeconfig", &out.kubeconfig);
  Reader controllers = kubernetes.section("controllers");
  controllers.read("deployment", &out.controllers.deployment);
  controllers.read("daemonSet", &out.controllers.daemon_set);
  controllers.read("job", &out.controllers.job);
  controllers.read("nodeLifecycle", &out.controllers.node_lifecycle);
  controllers.read("nodeEviction", &out.controllers.node_options.evicts);
  controllers.read("podCollector", &out.controllers.pod_collector);
  controllers.read("scheduler", &out.controllers.scheduler);
  controllers.read("endpointSlice", &out.controllers.endpoint_slice);
  controllers.read("endpoints", &out.controllers.endpoints);
  controllers.read("endpointSliceMirroring", &out.controllers.endpoints_mirror);
  controllers.read("garbageCollector", &out.controllers.garbage_collector);
  controllers.read("serviceAccount", &out.service_accounts);
  controllers.read("tokenCleaner", &out.clean_tokens);
  read_audit(root.section("audit"), out);
  read_mesh(root.section("mesh"), out);
  EM_TRY_VOID(document.finish());
  if (auto ok = validate(out); !ok) return fail(ok.error().with_context(document.name()));
  return out;
}

}  // namespace

std::vector<Cidr> default_service_cidrs() {
  return {*Cidr::parse("10.96.0.0/12")};
}

Result<CloudConfig> load_cloud_config(const std::string& path) {
  EM_TRY(auto document, Document::from_file(path));
  return read(document);
}

Result<CloudConfig> parse_cloud_config(std::string_view text, std::string name) {
  EM_TRY(auto document, Document::from_text(text, std::move(name)));
  return read(document);
}

Result<> validate(const CloudConfig& config) {
  if (config.state_dir.empty()) {
    return fail(ErrorCode::kInvalidArgument, "stateDir: '' is not allowed (want a directory)");
  }
  if (!config.admin_listen.ip.is_loopback()) {
    return fail(ErrorCode::kInvalidArgument,
                "admin.listen: '{}' is not allowed (want a loopback address: the admin endpoint has no login)",
                config.admin_listen.to_string());
  }
  for (const std::string& name : config.advertise) {
    if (!is_host(name)) {
      return fail(ErrorCode::kInvalidArgument,
                  "advertise: '{}' is not allowed (want an address or a host name)", name);
    }
  }
  for (const auto& [key, domain] : {std::pair<const char*, const std::string&>("trustDomain", config.trust_domain),
                                    {"clusterDomain", config.cluster_domain}}) {
    if (!is_domain_name(domain)) {
      return fail(ErrorCode::kInvalidArgument, "mesh.{}: '{}' is not allowed (want a domain name)", key, domain);
    }
  }
  for (const Cidr& cidr : config.service_cidrs) {
    if (cidr.bits < kMinServiceCidrBits) {
      return fail(ErrorCode::kInvalidArgument,
                  "mesh.serviceCidrs: '{}' is not allowed (want /{} or longer: agents capture all of it)",
                  cidr.to_string(), kMinServiceCidrBits);
    }
  }
  const auto of_family = [&config](bool v6) {
    return std::count_if(config.service_cidrs.begin(), config.service_cidrs.end(),
                         [v6](const Cidr& cidr) { return cidr.base.is_v6() == v6; });
  };
  if (of_family(false) > 1 || of_family(true) > 1) {
    return fail(ErrorCode::kInvalidArgument,
                "mesh.serviceCidrs: want at most one block of IPv4 and one of IPv6");
  }
  if (!config.audit.file.empty() && !config.kubeconfig.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "audit.file: '{}' is not allowed with a kubeconfig (the kube-apiserver keeps its own "
                "audit log: --audit-log-path)",
                config.audit.file);
  }
  if (!config.audit.file.empty() && config.audit.file.front() != '/') {
    return fail(ErrorCode::kInvalidArgument,
                "audit.file: '{}' is not allowed (want an absolute path)", config.audit.file);
  }
  if (config.turn_server.empty() != config.turn_secret_file.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "a TURN server needs both its address (--turn, mesh.turn.server) and its secret "
                "(--turn-secret-file, mesh.turn.secretFile)");
  }
  return {};
}

}  // namespace edgemesh::cloud
