#include "proxy/listener/config_file.h"

#include <malloc.h>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {

using ConfigPtr = std::shared_ptr<const model::Config>;

// Beyond this size of the file, what reading it left in the heap is worth giving back.
constexpr size_t kManyObjects = 500;

Result<ConfigPtr> read(const std::string& path, const ConfigPtr& before) {
  EM_TRY(ConfigPtr fresh, model::load_config(path));
  return before == nullptr ? fresh : model::share_unchanged(std::move(fresh), *before);
}

}  // namespace

ConfigFile::ConfigFile(io::Loop& loop, L7Proxy& proxy, std::string path)
    : loop_(loop), proxy_(proxy), path_(std::move(path)) {}

ConfigFile::~ConfigFile() {
  *alive_ = false;
}

void ConfigFile::reload(Done done) {
  waiting_.push_back(std::move(done));
  if (running_.empty()) begin();
}

void ConfigFile::begin() {
  running_ = std::exchange(waiting_, {});
  if (running_.empty()) return;
  auto result = std::make_shared<Result<ConfigPtr>>(ConfigPtr());
  loop_.offload([path = path_, before = proxy_.config(), result] { *result = read(path, before); },
                [this, alive = alive_, result] {
                  if (*alive) finish(std::move(*result));
                });
}

void ConfigFile::finish(Result<ConfigPtr> read) {
  Result<> result;
  if (!read) {
    result = fail(read.error());
  } else {
    const bool many = (*read)->clusters.size() + (*read)->routes.size() > kManyObjects;
    const Telemetry* telemetry = proxy_.telemetry();
    if (telemetry != nullptr && ((*read)->telemetry.metrics != telemetry->spec().metrics ||
                                 (*read)->telemetry.tracing != telemetry->spec().tracing))
      EM_LOG(kWarn, "proxy", "telemetry: metrics and tracing change with the next start");
    const TimePoint start = loop_.clock().now();
    result = proxy_.apply(std::move(*read));
    const auto took = loop_.clock().now() - start;
    if (result)
      EM_LOG(kInfo, "proxy", "{} was read again and is in force, in {:.1f} ms of the main loop",
             path_, std::chrono::duration<double, std::milli>(took).count());
    if (many) loop_.offload([] { malloc_trim(0); }, [] {});
  }
  const auto alive = alive_;
  for (Done& done : std::exchange(running_, {})) {
    done(result ? Result<>() : Result<>(fail(result.error())));
    if (!*alive) return;
  }
  begin();
}

}  // namespace edgemesh::proxy
