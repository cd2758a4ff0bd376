// What does the embedded Kubernetes API carry? Writes through its rules into SQLite on the disk,
// watch events, memory of many objects; one thread of the API, 64 writes on their way. Prints one
// line a figure: name, value, unit.
//   bench_api [FOLDER FOR THE FILE]
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cloud/api/core.h"

namespace {

using namespace edgemesh;
using namespace edgemesh::cloud;
using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

constexpr int kOnTheirWay = 64;

struct Api {
  std::unique_ptr<io::Loop> loop = std::move(*io::Loop::create());
  ResourceRegistry registry;
  std::unique_ptr<ApiStore> store;
  std::unique_ptr<ApiCore> core;

  explicit Api(const std::string& path) {
    ApiStore::Options options;
    options.path = path;
    store = std::move(*ApiStore::open(*loop, registry, options));
    core = std::make_unique<ApiCore>(*loop, *store, registry, ApiCore::Options());
    core->start();
    loop->run_until([this] { return store->version() >= 4; }, std::chrono::seconds(10));
  }
  const ResourceInfo& info(const kube::ResourceType& type) { return *registry.find(type); }

  // Keeps kOnTheirWay writes running until `count` are done; seconds.
  template <class Write>
  double run(int count, const Write& write) {
    int started = 0, done = 0, failed = 0;
    std::function<void()> next = [&] {
      if (started == count) return;
      write(started++, [&](ApiResult<ApiCore::Written> written) {
        if (!written && failed++ == 0)
          std::fprintf(stderr, "%s\n", written.error().message.c_str());
        ++done;
        next();
      });
    };
    const auto start = SteadyClock::now();
    for (int i = 0; i < kOnTheirWay; ++i) next();
    loop->run_until([&] { return done == count; }, std::chrono::seconds(120));
    return std::chrono::duration<double>(SteadyClock::now() - start).count();
  }
};

double resident_mib() {
  std::ifstream in("/proc/self/statm");
  double total = 0, resident = 0;
  in >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1048576.0;
}

json config_map(const std::string& name) {
  return {{"metadata", {{"name", name}, {"labels", {{"app", "bench"}}}}},
          {"data", {{"value", std::string(1024, 'x')}}}};
}

json pod(const std::string& name) {
  json container = {{"name", "c"}, {"image", "nginx:1.25"}, {"ports", {{{"containerPort", 80}}}}};
  return {{"metadata", {{"name", name}, {"labels", {{"app", "bench"}}}}},
          {"spec", {{"containers", json::array({container})}}}};
}

void print(const char* name, double value, const char* unit) {
  std::printf("%s %.0f %s\n", name, value, unit);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  std::string pattern = std::string(argc > 1 ? argv[1] : "/tmp") + "/em-api-bench-XXXXXX";
  const std::string dir = mkdtemp(pattern.data());
  {
    Api api(dir + "/api.db");
    const ResourceInfo& maps = api.info(kube::kConfigMaps);
    const ResourceInfo& pods = api.info(kube::kPods);
    constexpr int kWrites = 50'000;
    auto name = [](int i) { return "o-" + std::to_string(i); };
    const double before = resident_mib();
    double took = api.run(kWrites, [&](int i, ApiCore::Done done) {
      api.core->create(maps, "default", config_map(name(i)), {}, std::move(done));
    });
    print("api_create_configmap_1k", kWrites / took, "writes/s");
    took = api.run(kWrites, [&](int i, ApiCore::Done done) {
      api.core->patch(maps, "default", name(i), kube::PatchKind::kMerge,
                      {{"data", {{"n", std::to_string(i)}}}}, {}, std::move(done));
    });
    print("api_patch_configmap_1k", kWrites / took, "writes/s");
    took = api.run(kWrites, [&](int i, ApiCore::Done done) {
      api.core->create(pods, "default", pod(name(i)), {}, std::move(done));
    });
    print("api_create_pod", kWrites / took, "writes/s");
    print("api_memory_of_100000_objects", resident_mib() - before, "MiB");

    constexpr int kWatchers = 200, kChanges = 5'000;
    size_t events = 0;
    std::vector<std::unique_ptr<Subscription>> watchers;
    std::vector<std::pair<kube::EventType, ObjectPtr>> backlog;
    for (int i = 0; i < kWatchers; ++i) {
      watchers.push_back(
          std::move(*api.store->subscribe(maps, {}, api.store->version(), &backlog,
                                          [&events](kube::EventType, const ObjectPtr& object) {
                                            events += object->text.empty() ? 0 : 1;
                                          })));
    }
    took = api.run(kChanges, [&](int i, ApiCore::Done done) {
      api.core->patch(maps, "default", name(i), kube::PatchKind::kMerge,
                      {{"data", {{"n", "w" + std::to_string(i)}}}}, {}, std::move(done));
    });
    print("api_watch_events_200_watchers", static_cast<double>(events) / took, "events/s");
  }
  std::filesystem::remove_all(dir);
  return 0;
}
