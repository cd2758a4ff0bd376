// edgemesh-cloud: reads flags and configuration, then hands over to App.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "cloud/backup.h"
#include "cmd/edgemesh-cloud/app.h"
#include "core/base/version.h"

namespace {

using namespace edgemesh;  // NOLINT(google-build-using-namespace): the program's own file

int complain(const Error& error) {
  fmt::print(stderr, "edgemesh-cloud: {}\n", error.message);
  return 1;
}

// Flags as given; empty means: not given.
struct Flags {
  std::string config;
  std::string state_dir, kubeconfig, turn, turn_secret_file, log_level, log_format;
  std::string listen_api, listen_admin;
  std::vector<std::string> advertise, listen_hub, listen_bootstrap;
  bool check_config = false;
  bool print_token = false;
  std::string ttl, token_node;
  bool token_replace = false;
  std::string backup_to, restore_from;
  bool restore_replace = false;
};

void describe(CLI::App& cli, Flags& flags) {
  cli.add_option("--config", flags.config, "Configuration file (YAML)");
  cli.add_option("--state-dir", flags.state_dir,
                 "Where the CA, the store, admin.kubeconfig and join-token are kept "
                 "(default /var/lib/edgemesh-cloud)");
  cli.add_flag("--check-config", flags.check_config, "Check the configuration and end");
  cli.add_option("--advertise", flags.advertise,
                 "Address or name under which nodes reach this machine; may be repeated");
  cli.add_option("--kubeconfig", flags.kubeconfig,
                 "Use this cluster's kube-apiserver instead of the embedded API");
  cli.add_option("--listen-hub", flags.listen_hub, "Hub, ADDR:PORT (default port 10000)");
  cli.add_option("--listen-bootstrap", flags.listen_bootstrap,
                 "Bootstrap, ADDR:PORT (default port 10002)");
  cli.add_option("--listen-api", flags.listen_api, "Kubernetes API (default port 6443)");
  cli.add_option("--listen-admin", flags.listen_admin, "Admin pages (default 127.0.0.1:15100)");
  cli.add_option("--turn", flags.turn, "TURN server (coturn) for the nodes, HOST:PORT");
  cli.add_option("--turn-secret-file", flags.turn_secret_file,
                 "File with the TURN server's static-auth-secret");
  cli.add_option("--log-level", flags.log_level, "error, warn, info, debug or trace");
  cli.add_option("--log-format", flags.log_format, "text or json");
  cli.add_flag("--print-token", flags.print_token, "Print a join token when running");
  cli.set_version_flag("--version", std::string("edgemesh-cloud ") + kVersion);
}

Result<std::vector<SockAddr>> parse_listen(const std::vector<std::string>& texts,
                                           const char* flag) {
  std::vector<SockAddr> out;
  for (const std::string& text : texts) {
    auto addr = SockAddr::parse(text);
    if (!addr) {
      return fail(ErrorCode::kInvalidArgument, "{}: '{}' is not allowed (want ADDRESS:PORT)", flag,
                  text);
    }
    out.push_back(*addr);
  }
  return out;
}

Result<> override_text(const Flags& flags, cloud::CloudConfig& config) {
  const auto set = [](const std::string& flag, std::string& value) {
    if (!flag.empty()) value = flag;
  };
  set(flags.state_dir, config.state_dir);
  set(flags.kubeconfig, config.kubeconfig);
  if (!flags.turn.empty()) {
    auto server = config::HostPort::parse(flags.turn, 3478);
    if (!server) return fail(server.error().with_context("--turn"));
    config.turn_server = std::move(*server);
  }
  set(flags.turn_secret_file, config.turn_secret_file);
  if (!flags.advertise.empty()) config.advertise = flags.advertise;
  if (!flags.log_level.empty()) {
    const auto level = log::parse_level(flags.log_level);
    if (!level) {
      return fail(ErrorCode::kInvalidArgument,
                  "--log-level: '{}' is not allowed (want error, warn, info, debug or trace)",
                  flags.log_level);
    }
    config.log_level = *level;
  }
  if (flags.log_format == "json") {
    config.log_format = log::Format::kJson;
  } else if (flags.log_format == "text") {
    config.log_format = log::Format::kText;
  } else if (!flags.log_format.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "--log-format: '{}' is not allowed (want text or json)", flags.log_format);
  }
  return {};
}

Result<cloud::CloudConfig> load(const Flags& flags) {
  cloud::CloudConfig config;
  if (!flags.config.empty()) {
    EM_TRY(config, cloud::load_cloud_config(flags.config));
  }
  EM_TRY_VOID(override_text(flags, config));
  EM_TRY(auto hub, parse_listen(flags.listen_hub, "--listen-hub"));
  EM_TRY(auto bootstrap, parse_listen(flags.listen_bootstrap, "--listen-bootstrap"));
  if (!hub.empty()) config.hub_listen = std::move(hub);
  if (!bootstrap.empty()) config.bootstrap_listen = std::move(bootstrap);
  if (!flags.listen_api.empty()) {
    EM_TRY(config.api_listen, parse_listen({flags.listen_api}, "--listen-api"));
  }
  if (!flags.listen_admin.empty()) {
    EM_TRY(const auto addr, parse_listen({flags.listen_admin}, "--listen-admin"));
    config.admin_listen = addr.front();
  }
  EM_TRY_VOID(cloud::validate(config));
  return config;
}

// Thousands of nodes are thousands of descriptors.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
}

Result<> create_token(const cloud::CloudConfig& config, const Flags& flags) {
  const std::string& ttl = flags.ttl;
  std::chrono::seconds lifetime = config.token_lifetime;
  if (!flags.token_node.empty()) {
    if (auto ok = cloud::check_node_name(flags.token_node); !ok) {
      return fail(ok.error().with_context("--node"));
    }
  }
  if (!ttl.empty()) {
    const auto wanted = config::parse_duration(ttl);
    if (!wanted || *wanted < std::chrono::minutes(1)) {
      return fail(ErrorCode::kInvalidArgument,
                  "--ttl: '{}' is not allowed (want a time as 30m, 24h or 7d, at least 1m)", ttl);
    }
    lifetime = std::chrono::duration_cast<std::chrono::seconds>(*wanted);
  }
  EM_TRY(const auto ca,
         cloud::Ca::open({.state_dir = config.state_dir, .trust_domain = config.trust_domain, .must_exist = true}));
  fmt::print("{}\n", ca->new_token(lifetime, {flags.token_node, flags.token_replace}));
  return {};
}

Result<> backup(const cloud::CloudConfig& config, const Flags& flags) {
  EM_TRY(const auto done, cloud::make_backup(config.state_dir, flags.backup_to,
                                             std::chrono::system_clock::now()));
  fmt::print("{}: {} objects and {} files of {}. It holds the CA's key: keep it as such.\n",
             flags.backup_to, done.objects, done.files, config.state_dir);
  return {};
}

Result<> restore(const cloud::CloudConfig& config, const Flags& flags) {
  EM_TRY(const auto done,
         cloud::restore_backup(flags.restore_from, config.state_dir, flags.restore_replace,
                               std::chrono::system_clock::now()));
  if (!done.set_aside.empty()) fmt::print("what was there is in {}\n", done.set_aside);
  fmt::print("{}: {} objects and {} files are restored; start edgemesh-cloud\n", config.state_dir,
             done.objects, done.files);
  return {};
}

struct Commands {
  CLI::App* create_token = nullptr;
  CLI::App* backup = nullptr;
  CLI::App* restore = nullptr;
};

Commands add_commands(CLI::App& cli, Flags& flags) {
  Commands out;
  cli.require_subcommand(0, 1);
  CLI::App* token = cli.add_subcommand("token", "Join tokens");
  token->require_subcommand(1);
  CLI::App* create = token->add_subcommand("create", "Print a new join token");
  create->add_option("--ttl", flags.ttl, "How long it is good for, as 30m or 24h");
  auto* node = create->add_option("--node", flags.token_node, "The one node that may use it");
  create
      ->add_flag("--replace", flags.token_replace,
                 "Good even when a node of that name has joined: for one that lost its certificate")
      ->needs(node);
  out.create_token = create;
  out.backup = cli.add_subcommand(
      "backup", "Write objects, CA and keys into one file; the cloud may run meanwhile");
  out.backup->add_option("--to", flags.backup_to, "The file to make")->required();
  out.restore = cli.add_subcommand("restore", "Make the state directory from a backup");
  out.restore->add_option("--from", flags.restore_from, "A file that 'backup' made")->required();
  out.restore->add_flag("--replace", flags.restore_replace,
                        "Put aside the state that is there already");
  // Also behind the subcommands, where people put them.
  for (CLI::App* command : {out.create_token, out.backup, out.restore}) {
    command->add_option("--state-dir", flags.state_dir, "State directory");
    command->add_option("--config", flags.config, "Configuration file");
  }
  return out;
}

Result<> serve(const cloud::CloudConfig& config, bool print_token) {
  ::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  EM_TRY(const auto loop, io::Loop::create());
  EM_TRY(const auto app, cmd::App::create(*loop, config));
  if (print_token) {
    fmt::print("{}\n", app->new_token());
    std::fflush(stdout);
  }
  return app->run();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App cli("The cloud of an EdgeMesh: certificates, control channel, services, peers.");
  Flags flags;
  describe(cli, flags);
  const Commands commands = add_commands(cli, flags);
  CLI11_PARSE(cli, argc, argv);

  const auto config = load(flags);
  if (!config) return complain(config.error());
  if (flags.check_config) {
    fmt::print("{}: ok\n", flags.config.empty() ? "the configuration" : flags.config);
    return 0;
  }
  log::set_level(config->log_level);
  log::set_format(config->log_format);
  const Result<> done = commands.create_token->parsed() ? create_token(*config, flags)
                        : commands.backup->parsed()     ? backup(*config, flags)
                        : commands.restore->parsed()    ? restore(*config, flags)
                                                        : serve(*config, flags.print_token);
  return done ? 0 : complain(done.error());
}
