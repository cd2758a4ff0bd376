#include "agent/streams/stats.h"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "agent/edged/spec/labels.h"

namespace edgemesh::streams {
namespace {

using nlohmann::json;

int64_t unix_nanos(io::Loop& loop) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             loop.clock().wall_now().time_since_epoch())
      .count();
}

std::string time_text(int64_t nanos) {
  const std::time_t seconds = static_cast<std::time_t>(nanos / 1'000'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Nanoseconds of CPU a second.
uint64_t rate(const UsageSample& before, const UsageSample& now) {
  if (now.time <= before.time || now.cpu_nanos <= before.cpu_nanos) return 0;
  const double seconds = static_cast<double>(now.time - before.time) / 1e9;
  return static_cast<uint64_t>(static_cast<double>(now.cpu_nanos - before.cpu_nanos) / seconds);
}

json cpu_json(int64_t time, uint64_t nano_cores) {
  return {{"time", time_text(time)}, {"usageNanoCores", nano_cores}};
}
json memory_json(int64_t time, uint64_t bytes) {
  return {{"time", time_text(time)}, {"workingSetBytes", bytes}};
}

UsageLook read_look(const cri::pb::ListContainerStatsResponse& list, int64_t now) {
  UsageLook out;
  out.node = read_node_usage(now);
  for (const auto& stats : list.stats()) {
    const auto& labels = stats.attributes().labels();
    const auto label = [&](const char* key) {
      const auto it = labels.find(key);
      return it == labels.end() ? std::string() : it->second;
    };
    ContainerUsage usage;
    usage.uid = label(edged::kPodUidLabel);
    if (usage.uid.empty() || !stats.has_cpu()) continue;  // not of a pod, or it has ended
    usage.ns = label(edged::kPodNamespaceLabel);
    usage.pod = label(edged::kPodNameLabel);
    usage.name = label(edged::kContainerNameLabel);
    usage.sample.time = stats.cpu().timestamp() != 0 ? stats.cpu().timestamp() : now;
    usage.sample.cpu_nanos = stats.cpu().usage_core_nano_seconds().value();
    usage.sample.memory = stats.memory().working_set_bytes().value();
    out.containers[stats.attributes().id()] = std::move(usage);
  }
  return out;
}

}  // namespace

UsageSample read_node_usage(int64_t now, const std::string& root) {
  UsageSample out;
  out.time = now;
  std::ifstream stat(root + "/proc/stat");
  std::string name;
  // user nice system idle iowait irq softirq steal; guests are in user and nice already.
  uint64_t ticks[8] = {};
  stat >> name;
  for (uint64_t& value : ticks) stat >> value;
  const uint64_t busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7];
  const long hertz = sysconf(_SC_CLK_TCK);
  out.cpu_nanos = busy * (1'000'000'000 / static_cast<uint64_t>(hertz > 0 ? hertz : 100));
  std::ifstream meminfo(root + "/proc/meminfo");
  uint64_t total = 0, unused = 0, inactive = 0;
  for (std::string line; std::getline(meminfo, line);) {
    std::istringstream words(line);
    uint64_t kib = 0;
    words >> name >> kib;
    if (name == "MemTotal:") total = kib * 1024;
    if (name == "MemFree:") unused = kib * 1024;
    if (name == "Inactive(file):") inactive = kib * 1024;
  }
  // Cached files that nobody has used for a while can be dropped at any time: they are not counted.
  out.memory = total > unused + inactive ? total - unused - inactive : 0;
  return out;
}

std::string render_summary(const std::string& node, const UsageLook& before, const UsageLook& now) {
  struct Pod {
    json containers = json::array();
    std::string ns, name;
    uint64_t cpu = 0, memory = 0;
    int64_t time = 0;
  };
  std::map<std::string, Pod> pods;
  for (const auto& [id, usage] : now.containers) {
    const auto old = before.containers.find(id);
    if (old == before.containers.end()) continue;
    const uint64_t cpu = rate(old->second.sample, usage.sample);
    Pod& pod = pods[usage.uid];
    pod.ns = usage.ns;
    pod.name = usage.pod;
    pod.cpu += cpu;
    pod.memory += usage.sample.memory;
    pod.time = usage.sample.time;
    pod.containers.push_back({{"name", usage.name},
                              {"cpu", cpu_json(usage.sample.time, cpu)},
                              {"memory", memory_json(usage.sample.time, usage.sample.memory)}});
  }
  json list = json::array();
  for (auto& [uid, pod] : pods)
    list.push_back({{"podRef", {{"name", pod.name}, {"namespace", pod.ns}, {"uid", uid}}},
                    {"cpu", cpu_json(pod.time, pod.cpu)},
                    {"memory", memory_json(pod.time, pod.memory)},
                    {"containers", std::move(pod.containers)}});
  const json out{{"node",
                  {{"nodeName", node},
                   {"cpu", cpu_json(now.node.time, rate(before.node, now.node))},
                   {"memory", memory_json(now.node.time, now.node.memory)}}},
                 {"pods", std::move(list)}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Stats::Stats(io::Loop& loop, cri::RuntimeClient& runtime, std::string node, Options options)
    : loop_(loop),
      runtime_(runtime),
      node_(std::move(node)),
      options_(options),
      again_(loop, [this] { look(); }) {}

Stats::~Stats() {
  *alive_ = false;
}

void Stats::summary(Done done) {
  waiting_.push_back(std::move(done));
  if (waiting_.size() > 1) return;
  // Asked twice in a moment: the same answer.
  if (have_last_ && before_at_ != TimePoint{} && loop_.now() - last_at_ < options_.apart)
    return finish(render_summary(node_, before_, last_));
  look();
}

void Stats::look() {
  runtime_.list_container_stats(
      {}, [this, alive = alive_](Result<cri::pb::ListContainerStatsResponse> list) {
        if (!*alive) return;
        if (!list) return on_look(fail(std::move(list).error()));
        on_look(read_look(*list, unix_nanos(loop_)));
      });
}

void Stats::on_look(Result<UsageLook> look) {
  if (!look) return finish(fail(std::move(look).error()));
  const TimePoint now = loop_.now();
  const bool comparable = have_last_ && now - last_at_ <= options_.fresh;
  before_ = comparable ? std::move(last_) : UsageLook();
  before_at_ = comparable ? last_at_ : TimePoint{};
  last_ = std::move(*look);
  last_at_ = now;
  have_last_ = true;
  if (!comparable) return again_.start(options_.apart);
  finish(render_summary(node_, before_, last_));
}

void Stats::finish(const Result<std::string>& result) {
  auto waiting = std::move(waiting_);
  waiting_.clear();
  loop_.defer([waiting = std::move(waiting), result] {
    for (const Done& done : waiting) done(result);
  });
}

}  // namespace edgemesh::streams
