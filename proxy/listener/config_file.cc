#include "proxy/listener/config_file.h"

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {

using ConfigPtr = std::shared_ptr<const model::Config>;

constexpr Duration kExpiryCheck = std::chrono::hours(24);
constexpr int64_t kExpiresSoon = int64_t{7} * 24 * 3600;
constexpr const char* kReloads = "edgemesh_certificate_reloads_total";
constexpr const char* kReloadsHelp =
    "Changes of certificate, key and JWKS files, by what became of them.";

int64_t unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

}  // namespace

struct ConfigFile::Ready {
  ConfigPtr config;
  RouteTablesPtr tables;
  // What takes long, on a thread of its own.
  static Result<Ready> read(const std::string& path, const ConfigPtr& before,
                            const RouteTablesPtr& tables_before) {
    EM_TRY(ConfigPtr config, model::load_config(path));
    if (before != nullptr) config = model::share_unchanged(std::move(config), *before);
    EM_TRY(RouteTables tables, RouteTables::build(*config, *tables_before));
    return Ready{std::move(config), std::make_shared<RouteTables>(std::move(tables))};
  }
};

ConfigFile::ConfigFile(io::Loop& loop, L7Proxy& proxy, std::string path, obs::Registry& registry)
    : loop_(loop),
      proxy_(proxy),
      path_(std::move(path)),
      expiry_timer_(loop, [this] { check_expiry(); }),
      replaced_(registry.counter(kReloads, kReloadsHelp, {{"result", "replaced"}})),
      refused_(registry.counter(kReloads, kReloadsHelp, {{"result", "refused"}})) {
  auto watch = io::FileWatch::create(loop, [this] {
    look_again_ = true;
    next();
  });
  if (watch)
    watch_ = std::move(*watch);
  else
    EM_LOG(kWarn, "proxy", "changed certificates need a reload: {}", watch.error().message);
  expiry_timer_.start_repeating(kExpiryCheck);
  look_again_ = true;
  next();
  check_expiry();
}

ConfigFile::~ConfigFile() {
  *alive_ = false;
}

void ConfigFile::reload(Done done) {
  waiting_.push_back(std::move(done));
  next();
}

void ConfigFile::next() {
  if (busy_) return;
  if (!waiting_.empty())
    read_file();
  else if (look_again_)
    read_named_files();
}

void ConfigFile::read_file() {
  busy_ = true;
  running_ = std::exchange(waiting_, {});
  auto result = std::make_shared<Result<Ready>>(Ready());
  loop_.offload([path = path_, before = proxy_.config(), tables = proxy_.tables(),
                 result] { *result = Ready::read(path, before, tables); },
                [this, alive = alive_, result] {
                  if (*alive) finish_file(std::move(*result));
                });
}

void ConfigFile::finish_file(Result<Ready> ready) {
  const Result<> result = ready ? put_in_force(std::move(*ready)) : Result<>(fail(ready.error()));
  busy_ = false;
  look_again_ |= static_cast<bool>(result);
  const auto alive = alive_;
  for (Done& done : std::exchange(running_, {})) {
    done(result);
    if (!*alive) return;
  }
  next();
}

Result<> ConfigFile::put_in_force(Ready ready) {
  const auto& config = ready.config;
  const Telemetry* telemetry = proxy_.telemetry();
  if (telemetry != nullptr && (config->telemetry.metrics != telemetry->spec().metrics ||
                               config->telemetry.tracing != telemetry->spec().tracing))
    EM_LOG(kWarn, "proxy", "telemetry: metrics and tracing change with the next start");
  const TimePoint start = loop_.clock().now();
  EM_TRY_VOID(proxy_.apply(std::move(ready.config), std::move(ready.tables)));
  const auto took = loop_.clock().now() - start;
  EM_LOG(kInfo, "proxy", "{} was read again and is in force, in {:.1f} ms of the main loop", path_,
         std::chrono::duration<double, std::milli>(took).count());
  return {};
}

void ConfigFile::read_named_files() {
  look_again_ = false;
  const auto config = proxy_.config();
  if (config == nullptr || watch_ == nullptr) return;
  busy_ = true;
  auto result = std::make_shared<Result<model::ConfigFiles>>(model::ConfigFiles());
  loop_.offload([config, result] { *result = model::read_files_again(*config); },
                [this, alive = alive_, result] {
                  if (*alive) finish_named_files(std::move(*result));
                });
}

void ConfigFile::finish_named_files(Result<model::ConfigFiles> read) {
  busy_ = false;
  Result<> applied;
  if (!read) {
    applied = fail(read.error());
  } else {
    // What changed between the reading and the watching is read once more.
    if (read->files != watched_) look_again_ = true;
    watched_ = read->files;
    watch_->set(watched_);
    if (read->changed != nullptr) {
      applied = proxy_.apply(read->changed);
      if (applied) {
        replaced_.add();
        EM_LOG(kInfo, "proxy", "certificates, keys or JWKS changed and are in force");
        check_expiry();
      }
    }
  }
  if (!applied) {
    refused_.add();
    EM_LOG(kWarn, "proxy", "changed certificates are not taken, those before stay: {}",
           applied.error().message);
  }
  next();
}

void ConfigFile::check_expiry() {
  const int64_t now = unix_seconds(loop_.clock().wall_now());
  for (const CertificateInUse& one : proxy_.certificates()) {
    if (one.not_after == 0 || one.not_after - now > kExpiresSoon) continue;
    const bool ended = one.not_after <= now;
    EM_LOG(kWarn, "proxy", "the certificate of {} {}{}{} {}",
           one.cluster.empty() ? "listener" : "cluster",
           one.cluster.empty() ? one.listener : one.cluster, one.name.empty() ? "" : " for ",
           one.name,
           ended ? "has expired" : fmt::format("expires in {} h", (one.not_after - now) / 3600));
  }
}

}  // namespace edgemesh::proxy
