// edgemesh-agent: the proxy and node agent of one machine.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cmd/edgemesh-agent/app.h"
#include "core/base/log.h"
#include "core/base/version.h"

namespace {

struct Flags {
  std::string config = "/etc/edgemesh/agent.yaml";
  std::string state_dir, log_level, log_format;
  bool check = false;
};

edgemesh::Result<edgemesh::agent::AgentConfig> load(const Flags& flags) {
  using namespace edgemesh;  // NOLINT
  auto loaded = agent::load_config(flags.config);
  if (!loaded) {
    if (loaded.error().code == ErrorCode::kNotFound)
      return fail(ErrorCode::kNotFound, "{}; 'edgemesh join' writes it, --config names another", loaded.error().message);
    return loaded;
  }
  if (!flags.state_dir.empty()) loaded->state_dir = flags.state_dir;
  if (!flags.log_level.empty()) {
    auto level = log::parse_level(flags.log_level);
    if (!level)
      return fail(ErrorCode::kInvalidArgument, "--log-level: '{}' is not allowed (want error, warn, info, debug or trace)",
                  flags.log_level);
    loaded->log.level = *level;
  }
  if (flags.log_format == "json") loaded->log.format = log::Format::kJson;
  return loaded;
}

int run(const edgemesh::agent::AgentConfig& config) {
  using namespace edgemesh;  // NOLINT
  log::set_level(config.log.level);
  log::set_format(config.log.format);
  auto loop = io::Loop::create();
  if (!loop) {
    std::fprintf(stderr, "edgemesh-agent: %s\n", loop.error().message.c_str());
    return 1;
  }
  // Before the rules are written: a signal that came in between would end the process and leave them.
  Result<std::unique_ptr<cmd::App>> app = std::unique_ptr<cmd::App>();
  auto stop = [&] {
    if (app && *app) (*app)->shut_down();
  };
  auto term = io::SignalWatch::start(**loop, SIGTERM, stop);
  auto interrupt = io::SignalWatch::start(**loop, SIGINT, stop);
  auto hup = io::SignalWatch::start(**loop, SIGHUP, [&] {
    if (!app || !*app) return;
    (*app)->reload([](Result<> done) {
      if (!done)
        EM_LOG(kError, "agent", "{}; the configuration before stays", done.error().message);
    });
  });
  if (!term || !interrupt || !hup) {
    std::fprintf(stderr, "edgemesh-agent: signals cannot be received\n");
    return 1;
  }
  app = cmd::App::create(**loop, config);
  if (!app) {
    std::fprintf(stderr, "edgemesh-agent: %s\n", app.error().message.c_str());
    return 1;
  }
  for (const auto& [component, level] : config.log.components) log::set_level(component, level);
  EM_LOG(kInfo, "agent", "edgemesh-agent {} runs", kVersion);
  (*loop)->run();
  term->reset();
  interrupt->reset();
  hup->reset();
  app->reset();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App cli{"EdgeMesh agent: service-mesh proxy and node agent of one machine.\n"
               "Join first: edgemesh join --cloud HOST:10002 --token TOKEN"};
  Flags flags;
  cli.add_option("--config", flags.config, "configuration file")->capture_default_str();
  cli.add_option("--state-dir", flags.state_dir, "folder of certificates and metadata (instead of stateDir)");
  cli.add_option("--log-level", flags.log_level, "error, warn, info, debug or trace");
  cli.add_option("--log-format", flags.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  cli.add_flag("--check-config", flags.check, "check the configuration file and end");
  cli.set_version_flag("--version", std::string("edgemesh-agent ") + edgemesh::kVersion);
  CLI11_PARSE(cli, argc, argv);
  signal(SIGPIPE, SIG_IGN);
  auto config = load(flags);
  if (!config) {
    std::fprintf(stderr, "edgemesh-agent: %s\n", config.error().message.c_str());
    return 2;
  }
  if (flags.check) {
    std::printf("%s: ok\n", flags.config.c_str());
    return 0;
  }
  return run(*config);
}
