#include "cmd/edgemesh/commands.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/bootstrap.h"
#include "agent/config.h"
#include "cmd/edgemesh/admin_client.h"
#include "cmd/edgemesh/print.h"
#include "core/http/message.h"
#include "proxy/capture.h"

namespace edgemesh::cli {

namespace {

using nlohmann::json;

void show(const Common& common, const json& answer, const std::string& text) {
  std::string out = common.json() ? answer.dump(2) + "\n" : text;
  std::fwrite(out.data(), 1, out.size(), stdout);
}

Result<> make_config_folder(const std::string& config) {
  auto folder = std::filesystem::path(config).parent_path();
  if (folder.empty()) folder = ".";
  std::error_code ec;
  std::filesystem::create_directories(folder, ec);
  if (ec) return fail_errno("make the folder " + folder.string(), ec.value());
  if (access(folder.c_str(), W_OK) != 0)
    return fail_errno("write to " + folder.string() + " (are you root? --config names another file)", errno);
  return {};
}

// Everything that join and the agent may have left, also half-written files.
bool is_state_file(const std::string& name) {
  for (std::string_view known : {"node.crt", "node.key", "node.next", "join.key", "ca.crt", "meta.db"}) {
    if (name == known || name == std::string(known) + ".tmp") return true;
  }
  return name.starts_with("meta.db-") || name.starts_with("meta.db.broken-");
}

}  // namespace

Result<> join(JoinFlags flags, const Common& common) {
  // The agent starts from another folder.
  std::error_code ec;
  flags.state_dir = std::filesystem::absolute(flags.state_dir, ec).lexically_normal().string();
  flags.config = std::filesystem::absolute(flags.config, ec).lexically_normal().string();
  agent::AgentConfig config;
  config.node_name = flags.node;
  if (config.node_name.empty()) {
    EM_TRY(config.node_name, agent::host_node_name());
  }
  EM_TRY_VOID(agent::check_node_name(config.node_name));
  auto server = config::HostPort::parse(flags.cloud, 10002);
  if (!server) return fail(server.error().with_context("--cloud"));
  config.state_dir = flags.state_dir;
  config.cloud.bootstrap = *server;
  config.cloud.hub = {server->host, flags.hub_port};
  if (auto present = agent::load_identity(flags.state_dir); present && !flags.force)
    return fail(ErrorCode::kAlreadyExists,
                "this machine has joined as node '{}' ({}); --force joins anew", present->node, flags.state_dir);
  // Before the token is used: a certificate without a configuration would be half a join.
  EM_TRY_VOID(make_config_folder(flags.config));
  EM_TRY(auto identity, agent::join_blocking({.server = *server, .node = config.node_name}, flags.token,
                                             flags.state_dir));
  EM_TRY_VOID(agent::write_file_atomically(flags.config, agent::render_join_config(config), 0644));
  json answer{{"node", identity.node}, {"config", flags.config}, {"stateDir", flags.state_dir},
              {"certificateExpires", identity.not_after}};
  show(common, answer,
       fmt::format("Joined as node '{}'. Configuration: {}\nStart the agent: systemctl {} edgemesh-agent "
                   "(or edgemesh-agent --config {})\n",
                   identity.node, flags.config, flags.force ? "restart" : "start", flags.config));
  return {};
}

Result<> reset(const ResetFlags& flags, const Common& common) {
  proxy::CaptureConfig capture;
  capture.service_cidrs = {*Cidr::parse("10.96.0.0/12"), *Cidr::parse("fd00::/8")};
  capture.dns_addresses = agent::AgentConfig().dns.addresses();
  if (auto config = agent::load_config(flags.config, false)) {
    capture.dns_addresses = config->dns.addresses();
    if (!config->capture.service_cidrs.empty()) capture.service_cidrs = config->capture.service_cidrs;
  }
  EM_TRY_VOID(proxy::Capture::remove_all(io::system_executor(), capture));
  size_t removed = 0;
  std::error_code ec;
  if (flags.purge)
    for (const auto& entry : std::filesystem::directory_iterator(flags.state_dir, ec))
      if (is_state_file(entry.path().filename().string()))
        removed += std::filesystem::remove(entry.path(), ec) ? 1 : 0;
  show(common, json{{"rulesRemoved", true}, {"filesDeleted", removed}},
       fmt::format("Capture rules, routes and interface are removed{}.\n",
                   flags.purge ? fmt::format("; {} files deleted in {}", removed, flags.state_dir) : ""));
  return {};
}

Result<> status(const Common& common) {
  EM_TRY(json answer, call_admin(common.admin, "GET", "/status"));
  show(common, answer, status_text(answer));
  return {};
}

Result<> netcheck(const Common& common) {
  EM_TRY(json answer, call_admin(common.admin, "POST", "/netcheck", std::chrono::seconds(30)));
  show(common, answer, netcheck_text(answer));
  return {};
}

Result<> path(const std::string& node, const Common& common) {
  EM_TRY(json answer, call_admin(common.admin, "POST", "/path?node=" + http::percent_encode(node)));
  show(common, answer, path_text(answer));
  return {};
}

}  // namespace edgemesh::cli
