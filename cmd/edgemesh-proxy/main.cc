// edgemesh-proxy: the data plane on its own, steered by a file: a gateway, a load balancer, a
// sidecar.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>

#include "cmd/edgemesh-proxy/app.h"
#include "cmd/hot_restart/hot_restart.h"
#include "core/base/log.h"
#include "core/base/version.h"

namespace {

int failed(const std::string& why) {
  std::fprintf(stderr, "edgemesh-proxy: %s\n", why.c_str());
  return 1;
}

int run(const edgemesh::cmd::ProxyFlags& flags, const std::vector<std::string>& argv) {
  using namespace edgemesh;  // NOLINT
  auto loop = io::Loop::create();
  if (!loop) return failed(loop.error().message);
  auto before = cmd::Predecessor::find();
  if (!before) return failed(before.error().message);
  const bool takes_over = *before != nullptr;
  proxy::InheritedSockets inherited;
  if (takes_over)
    if (auto got = (*before)->receive(&inherited); !got) return failed(got.error().message);
  auto app = cmd::ProxyApp::create(**loop, flags, inherited);
  if (!app) return failed(app.error().message);
  inherited.clear();
  auto stop = [&] { (*app)->shut_down(); };
  auto term = io::SignalWatch::start(**loop, SIGTERM, stop);
  auto interrupt = io::SignalWatch::start(**loop, SIGINT, stop);
  auto hup = io::SignalWatch::start(**loop, SIGHUP, [&] {
    (*app)->reload([&](Result<> done) {
      if (!done)
        EM_LOG(kError, "proxy", "{}; the configuration before stays", done.error().message);
    });
  });
  cmd::HotRestart::Hooks hooks;
  hooks.sockets = [&] { return (*app)->listening_sockets(); };
  hooks.give_flows = [&](auto done) { (*app)->l7().give_flows(std::move(done)); };
  hooks.take_datagrams_back = [&] { (*app)->l7().take_flows({}); };
  hooks.drain = [&] { (*app)->hand_over(); };
  cmd::HotRestart restart(**loop, argv, std::move(hooks));
  auto usr2 = io::SignalWatch::start(**loop, SIGUSR2, [&] { restart.begin(); });
  if (!term || !interrupt || !hup || !usr2) return 1;
  if (takes_over) {
    std::vector<proxy::HandedFlow> flows;
    if (auto taken = (*before)->take_over(&flows); !taken)
      EM_LOG(kWarn, "proxy", "{}; this one serves", taken.error().message);
    (*app)->l7().take_flows(std::move(flows));
  }
  before->reset();
  EM_LOG(kInfo, "proxy", "edgemesh-proxy {} runs", kVersion);
  cmd::notify_service_manager(fmt::format("READY=1\nMAINPID={}", getpid()));
  (*loop)->run();
  app->reset();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace edgemesh;  // NOLINT
  CLI::App cli{
      "EdgeMesh proxy: the data plane on its own, steered by a file.\n"
      "Signals: TERM drains and ends; HUP reads the file and opens access logs again; USR2 starts\n"
      "a new process in its place, without a connection refused."};
  cmd::ProxyFlags flags;
  std::string level = "info", format = "text";
  bool check = false;
  cli.add_option("--config", flags.config, "listeners, routes and clusters (YAML)")
      ->capture_default_str();
  cli.add_option("--workers", flags.workers, "threads that serve; 0: one for each processor")
      ->capture_default_str()
      ->check(CLI::Range(0, 256));
  cli.add_option("--admin", flags.admin, "address of the admin endpoint; empty: none")
      ->capture_default_str();
  cli.add_option("--node", flags.node, "name of this node, for locality");
  cli.add_option("--zone", flags.zone, "zone of this node, for locality");
  cli.add_option("--drain-seconds", flags.drain_seconds, "longest wait for requests at the end")
      ->capture_default_str();
  cli.add_option("--log-level", level, "error, warn, info, debug or trace")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "warn", "info", "debug", "trace"}));
  cli.add_option("--log-format", format, "text or json")->check(CLI::IsMember({"text", "json"}));
  cli.add_flag("--check-config", check, "check the configuration file and end");
  cli.set_version_flag("--version", std::string("edgemesh-proxy ") + kVersion);
  CLI11_PARSE(cli, argc, argv);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);  // one that comes before this process serves must not end it
  if (flags.workers == 0) flags.workers = static_cast<int>(std::thread::hardware_concurrency());
  log::set_level(*log::parse_level(level));
  if (format == "json") log::set_format(log::Format::kJson);
  if (check) {
    auto config = proxy::model::load_config(flags.config);
    auto checked = config ? proxy::check_config(**config) : Result<>(fail(config.error()));
    if (!checked) {
      std::fprintf(stderr, "edgemesh-proxy: %s\n", checked.error().message.c_str());
      return 2;
    }
    std::printf("%s: ok\n", flags.config.c_str());
    return 0;
  }
  return run(flags, {argv, argv + argc});
}
