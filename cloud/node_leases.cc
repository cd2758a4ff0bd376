#include "cloud/node_leases.h"

#include <nlohmann/json.hpp>

#include "cloud/node_controller.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr const char* kNamespace = "kube-node-lease";
constexpr Duration kSayEvery = std::chrono::minutes(1);

// Unix seconds of an RFC 3339 time in UTC, as Kubernetes writes them; 0: unreadable.
int64_t seconds_of(const std::string& text) {
  const auto time = kube::parse_rfc3339(text);
  return time ? std::chrono::system_clock::to_time_t(*time) : 0;
}

}  // namespace

NodeLeases::NodeLeases(io::Loop& loop, kube::Client& client, Options options)
    : loop_(loop), client_(client), options_(options) {}

NodeLeases::~NodeLeases() {
  *alive_ = false;
}

void NodeLeases::renew(const std::string& node) {
  if (!waiting_.insert(node).second) return;
  queue_.push_back(node);
  work();
}

void NodeLeases::work() {
  while (!queue_.empty() && in_flight_ < options_.max_in_flight) {
    const std::string node = std::move(queue_.front());
    queue_.pop_front();
    waiting_.erase(node);
    ++in_flight_;
    send(node);
  }
}

void NodeLeases::send(const std::string& node) {
  const auto lifetime = std::chrono::duration_cast<std::chrono::seconds>(options_.lifetime).count();
  const Json spec{{"holderIdentity", node},
                  {"leaseDurationSeconds", lifetime},
                  {"renewTime", kube::rfc3339(loop_.clock().wall_now(), true)}};
  auto renewed = [this, alive = alive_, node, spec](Result<std::string> result) {
    if (!*alive) return;
    if (result || result.error().code != ErrorCode::kNotFound) return finish(node, result);
    const Json lease{{"apiVersion", "coordination.k8s.io/v1"},
                     {"kind", "Lease"},
                     {"metadata", {{"name", node}, {"namespace", kNamespace}}},
                     {"spec", spec}};
    client_.create(kube::kLeases, kNamespace, lease.dump(), {},
                   [this, alive, node](Result<std::string> made) {
                     // Its kubelet may have been faster.
                     const bool there = !made && made.error().code == ErrorCode::kAlreadyExists;
                     if (*alive) finish(node, there ? Result<std::string>("") : made);
                   });
  };
  client_.patch(kube::kLeases, kNamespace, node, kube::PatchKind::kMerge,
                Json{{"spec", spec}}.dump(), {}, std::move(renewed));
}

void NodeLeases::finish(const std::string& node, const Result<std::string>& result) {
  --in_flight_;
  if (!result) {
    ++failures_;
    if (said_at_ == TimePoint{} || loop_.now() - said_at_ >= kSayEvery) {
      EM_LOG(kWarn, "nodes", "{} lease renewals failed, the last one of node {}: {}",
             failures_ - failures_said_, node, result.error().message);
      said_at_ = loop_.now();
      failures_said_ = failures_;
    }
  }
  work();
}

NodeLeases::Sign NodeLeases::judge(const std::string& node, const Result<std::string>& lease) {
  std::string renewed;
  if (lease) renewed = kube::text_at(Json::parse(*lease, nullptr, false), "spec", "renewTime");
  if (renewed.empty()) {
    seen_.erase(node);
    return Sign::kDead;
  }
  const auto it = seen_.find(node);
  const bool asked_before = it != seen_.end();
  const bool moved = asked_before && it->second != renewed;
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(loop_.clock().wall_now().time_since_epoch())
          .count();
  const auto lifetime = std::chrono::duration_cast<std::chrono::seconds>(options_.lifetime).count();
  const int64_t age = now - seconds_of(renewed);
  if (moved || (!asked_before && age >= -lifetime && age < lifetime)) {
    seen_.erase(node);
    return Sign::kAlive;
  }
  if (asked_before) {
    seen_.erase(it);
    return Sign::kDead;
  }
  seen_.emplace(node, std::move(renewed));
  return Sign::kAskAgain;
}

void NodeLeases::ask(const std::string& node, UniqueFunction<void(Result<Sign>)> done) {
  client_.get(
      kube::kLeases, kNamespace, node,
      [this, alive = alive_, node, done = std::move(done)](Result<std::string> lease) mutable {
        if (!*alive) return;
        if (!lease && lease.error().code != ErrorCode::kNotFound) {
          return done(fail(lease.error()));
        }
        done(judge(node, lease));
      });
}

}  // namespace edgemesh::cloud
