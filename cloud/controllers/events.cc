#include "cloud/controllers/events.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxInFlight = 128;
constexpr size_t kMaxRemembered = 2000;
constexpr size_t kMaxMessage = 1024;  // as Kubernetes
constexpr Duration kSame = std::chrono::minutes(10);
constexpr Duration kWriteEvery = std::chrono::seconds(5);

}  // namespace

Events::Events(Cluster& cluster, std::string component)
    : cluster_(cluster), component_(std::move(component)) {}

Events::~Events() {
  *alive_ = false;
}

Json Events::make(const ClusterObject& about, const char* type, const std::string& reason,
                  const std::string& message) const {
  const auto wall = cluster_.loop().clock().wall_now();
  const std::string now = kube::rfc3339(wall);
  const auto nanos =
      std::chrono::duration_cast<std::chrono::nanoseconds>(wall.time_since_epoch()).count();
  Json involved{{"apiVersion", about.type->api_version()},
                {"kind", about.type->kind},
                {"name", about.name},
                {"uid", about.uid},
                {"resourceVersion", about.version}};
  if (!about.ns.empty()) involved["namespace"] = about.ns;
  return {{"apiVersion", "v1"},
          {"kind", "Event"},
          {"metadata",
           {{"name", fmt::format("{}.{:x}", about.name, nanos)},
            {"namespace", about.ns.empty() ? "default" : about.ns}}},
          {"involvedObject", std::move(involved)},
          {"type", type},
          {"reason", reason},
          {"message", message.substr(0, kMaxMessage)},
          {"count", 1},
          {"firstTimestamp", now},
          {"lastTimestamp", now},
          {"source", {{"component", component_}}},
          {"reportingComponent", component_},
          {"reportingInstance", ""}};
}

void Events::tell(const ClusterObject& about, const char* type, const std::string& reason,
                  const std::string& message) {
  const TimePoint now = cluster_.loop().now();
  std::string key = about.uid + '\n' + reason + '\n' + message;
  if (const auto it = told_.find(key); it != told_.end()) {
    if (now - it->second.first < kSame) {
      ++it->second.count;
      if (now - it->second.written >= kWriteEvery) say_again(it->second);
      return;
    }
    told_.erase(it);
  }
  if (in_flight_ >= kMaxInFlight) return;
  if (told_.size() >= kMaxRemembered) told_.clear();  // an event more than needed, later
  told_[key] = {nullptr, 1, now, now};
  ++in_flight_;
  Json event = make(about, type, reason, message);
  auto made = std::make_shared<ClusterObject>();
  made->type = &kube::kEvents;
  made->name = event["metadata"]["name"];
  made->ns = event["metadata"]["namespace"];
  cluster_.create(kube::kEvents, made->ns, event,
                  [this, alive = alive_, key = std::move(key), made](Result<SharedObject> result) {
                    if (!*alive) return;
                    --in_flight_;
                    const auto it = told_.find(key);
                    if (it == told_.end()) return;
                    if (result)
                      it->second.event = made;
                    else
                      told_.erase(it);
                  });
}

void Events::say_again(Told& told) {
  if (told.event == nullptr || in_flight_ >= kMaxInFlight) return;
  told.written = cluster_.loop().now();
  ++in_flight_;
  const Json patch{{"count", told.count},
                   {"lastTimestamp", kube::rfc3339(cluster_.loop().clock().wall_now())}};
  cluster_.patch(told.event, patch, [this, alive = alive_](Result<SharedObject>) {
    if (*alive) --in_flight_;
  });
}

}  // namespace edgemesh::cloud::controllers
