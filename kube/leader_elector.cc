#include "kube/leader_elector.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::kube {

using nlohmann::json;

namespace {

int64_t whole_at(const json& spec, const char* key) {
  const json* value = find(spec, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

}  // namespace

LeaderElector::LeaderElector(io::Loop& loop, Client& client, Options options, Handlers handlers)
    : loop_(loop),
      client_(client),
      options_(std::move(options)),
      handlers_(std::move(handlers)),
      random_(options_.seed != 0 ? options_.seed : std::random_device()()),
      timer_(loop, [this] { turn(); }) {}

LeaderElector::~LeaderElector() {
  *alive_ = false;
}

Client::Callback LeaderElector::guarded(UniqueFunction<void(Result<std::string>)> then) {
  return [alive = alive_, then = std::move(then)](Result<std::string> result) {
    if (*alive) then(std::move(result));
  };
}

void LeaderElector::start() {
  running_ = true;
  timer_.start(Duration::zero());
}

void LeaderElector::turn() {
  if (!running_) return;
  if (leads_ && loop_.now() - renewed_at_ >= options_.renew_deadline)
    lose(last_error_.empty() ? "the lease could not be renewed" : last_error_);
  again();  // also while an answer is late: a leader must notice its deadline
  if (std::exchange(asking_, true)) return;
  asked_at_ = loop_.now();
  client_.get(kLeases, options_.ns, options_.name, guarded([this](Result<std::string> object) {
                asking_ = false;
                on_lease(std::move(object));
              }));
}

void LeaderElector::again() {
  double factor = 1;
  if (!leads_) factor += std::uniform_real_distribution<double>(0, 1.2)(random_);
  timer_.start(
      Duration(static_cast<int64_t>(static_cast<double>(options_.retry_period.count()) * factor)));
}

void LeaderElector::on_lease(Result<std::string> object) {
  if (!running_) return;
  if (!object) {
    if (object.error().code == ErrorCode::kNotFound) return take(nullptr);
    return note_error(object.error());
  }
  auto lease = parse_json(*object);
  if (!lease) return;
  observe(*lease);
  const std::string holder = text_at(*lease, "spec", "holderIdentity");
  if (holder != options_.identity && leads_) return lose(holder + " has the lease");
  if (!holder.empty() && holder != options_.identity) {
    const json* spec = find(*lease, "spec");
    const auto duration = std::chrono::seconds(whole_at(*spec, "leaseDurationSeconds"));
    if (loop_.now() - seen_at_ < duration) return;
  }
  take(&*lease);
}

void LeaderElector::observe(const json& lease) {
  const json* spec = find(lease, "spec");
  std::string now = spec == nullptr ? std::string("none") : to_text(*spec);
  if (now != lease_) {
    lease_ = std::move(now);
    seen_at_ = loop_.now();
  }
  std::string holder = text_at(lease, "spec", "holderIdentity");
  if (holder == leader_ || holder.empty()) return;
  leader_ = std::move(holder);
  if (handlers_.on_new_leader) handlers_.on_new_leader(leader_);
}

json LeaderElector::spec(const json* before) const {
  const std::string now = rfc3339(loop_.clock().wall_now(), true);
  json out{{"holderIdentity", options_.identity},
           {"leaseDurationSeconds", options_.lease_duration.count()},
           {"renewTime", now},
           {"acquireTime", now},
           {"leaseTransitions", 0}};
  if (before == nullptr) return out;
  const bool ours = text_at(*before, "holderIdentity") == options_.identity;
  out["leaseTransitions"] = whole_at(*before, "leaseTransitions") + (ours ? 0 : 1);
  if (const std::string since = text_at(*before, "acquireTime"); ours && !since.empty())
    out["acquireTime"] = since;
  return out;
}

void LeaderElector::take(const json* lease) {
  json body{{"apiVersion", "coordination.k8s.io/v1"},
            {"kind", "Lease"},
            {"metadata", {{"name", options_.name}, {"namespace", options_.ns}}},
            {"spec", spec(lease == nullptr ? nullptr : find(*lease, "spec"))}};
  asking_ = true;
  auto written = guarded([this](Result<std::string> object) {
    asking_ = false;
    on_written(std::move(object));
  });
  if (lease == nullptr)
    return client_.create(kLeases, options_.ns, to_text(body), {}, std::move(written));
  // The version makes sure that of two one fails.
  body["metadata"]["resourceVersion"] = text_at(*lease, "metadata", "resourceVersion");
  client_.update(kLeases, options_.ns, options_.name, to_text(body), {}, std::move(written));
}

void LeaderElector::note_error(const Error& error) {
  // Once: an API that is away, or lacking rights, stays so for a while.
  if (last_error_.empty())
    EM_LOG(kWarn, "leader", "the lease {}/{}: {}; trying on", options_.ns, options_.name,
           error.message);
  last_error_ = error.message;
}

void LeaderElector::on_written(Result<std::string> object) {
  if (!running_) return;
  if (!object) {
    // Of two that take it at once one has this answer; that is no trouble.
    if (object.error().code == ErrorCode::kConflict) return;
    return note_error(object.error());
  }
  auto lease = parse_json(*object);
  if (lease) observe(*lease);
  last_error_.clear();
  // From when the request was made: the server may have taken it as early as that.
  renewed_at_ = asked_at_;
  if (std::exchange(leads_, true)) return;
  EM_LOG(kInfo, "leader", "{} leads ({})", options_.identity, options_.name);
  if (handlers_.on_leads) handlers_.on_leads();
}

void LeaderElector::lose(const std::string& why) {
  leads_ = false;
  EM_LOG(kWarn, "leader", "{} leads no more ({}): {}", options_.identity, options_.name, why);
  if (handlers_.on_follows) handlers_.on_follows();
}

void LeaderElector::stop(UniqueFunction<void()> done) {
  running_ = false;
  timer_.stop();
  if (!std::exchange(leads_, false)) {
    loop_.defer([done = std::move(done)] { done(); });
    return;
  }
  if (handlers_.on_follows) handlers_.on_follows();
  client_.get(kLeases, options_.ns, options_.name,
              guarded([this, done = std::move(done)](Result<std::string> object) mutable {
                auto lease = object ? parse_json(*object) : Result<json>(fail(object.error()));
                if (!lease || text_at(*lease, "spec", "holderIdentity") != options_.identity)
                  return done();
                // As client-go does it: nobody, for a second.
                json& spec = (*lease)["spec"];
                spec["holderIdentity"] = "";
                spec["leaseDurationSeconds"] = 1;
                spec["renewTime"] = rfc3339(loop_.clock().wall_now(), true);
                client_.update(kLeases, options_.ns, options_.name, to_text(*lease), {},
                               guarded([done = std::move(done)](Result<std::string>) { done(); }));
              }));
}

}  // namespace edgemesh::kube
