// edgemesh: what a person types on a node. A thin client of the agent's admin endpoint, and the two
// commands that work without an agent: join and reset.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cmd/edgemesh/commands.h"
#include "cmd/edgemesh/top.h"
#include "core/base/log.h"
#include "core/base/version.h"

namespace {

using edgemesh::Result;
using edgemesh::cli::Common;

void add_common(CLI::App* command, Common& common) {
  command->add_option("--admin", common.admin, "admin endpoint of the agent (or of an edgemesh-proxy: top)")->capture_default_str();
  command->add_option("-o,--output", common.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"EdgeMesh on this machine"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("edgemesh ") + edgemesh::kVersion);
  Common common;
  edgemesh::cli::JoinFlags join;
  edgemesh::cli::ResetFlags reset;
  std::string node;

  auto* join_command = app.add_subcommand("join", "get a certificate from the cloud and write the configuration");
  join_command->add_option("--cloud", join.cloud, "HOST[:PORT] of the cloud (port 10002)")->required();
  join_command->add_option("--token", join.token, "join token ('edgemesh-cloud token create' prints one)")->required();
  join_command->add_option("--node", join.node, "name of this node (the host's name)");
  join_command->add_option("--state-dir", join.state_dir, "folder of certificates and metadata")->capture_default_str();
  join_command->add_option("--config", join.config, "configuration file to write")->capture_default_str();
  join_command->add_option("--hub-port", join.hub_port, "port of the channel")->capture_default_str();
  join_command->add_flag("--force", join.force, "replace an identity that is there");
  add_common(join_command, common);

  auto* reset_command = app.add_subcommand("reset", "take out what an agent left: packet filter rules, routes, interface");
  reset_command->add_option("--state-dir", reset.state_dir, "folder of certificates and metadata")->capture_default_str();
  reset_command->add_option("--config", reset.config, "configuration file")->capture_default_str();
  reset_command->add_flag("--purge", reset.purge, "also delete certificates and metadata");
  add_common(reset_command, common);

  auto* status_command = app.add_subcommand("status", "channel, peers, services");
  add_common(status_command, common);
  auto* netcheck_command = app.add_subcommand("netcheck", "what this network allows: NAT, UDP, relay");
  add_common(netcheck_command, common);
  auto* path_command = app.add_subcommand("path", "the path to another node; opens one when there is none");
  path_command->add_option("node", node, "name of the node")->required();
  add_common(path_command, common);

  edgemesh::cli::TopFlags top;
  auto* top_command = app.add_subcommand("top", "requests, errors, latency and bytes by service, live");
  top_command->add_option("--interval", top.interval, "seconds between two pictures")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  top_command->add_flag("--once", top.once, "print one interval and end");
  add_common(top_command, common);

  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    // A word that is no command counts as none for the parser.
    if (const auto words = app.remaining(); app.get_subcommands().empty() && !words.empty()) {
      std::fprintf(stderr, "edgemesh: '%s' is no command; 'edgemesh --help' lists them\n", words[0].c_str());
      return 2;
    }
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  }
  signal(SIGPIPE, SIG_IGN);
  edgemesh::log::set_level(edgemesh::log::Level::kWarn);
  Result<> result;
  if (*join_command) result = edgemesh::cli::join(join, common);
  if (*reset_command) result = edgemesh::cli::reset(reset, common);
  if (*status_command) result = edgemesh::cli::status(common);
  if (*netcheck_command) result = edgemesh::cli::netcheck(common);
  if (*top_command) result = edgemesh::cli::top(top, common);
  if (*path_command) result = edgemesh::cli::path(node, common);
  if (!result) {
    std::fprintf(stderr, "edgemesh: %s\n", result.error().message.c_str());
    return 1;
  }
  return 0;
}
