#include "cloud/siblings.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "core/config/reader.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr const char* kNamespace = "kube-system";
constexpr const char* kLabel = "edgemesh.io/cloud";
constexpr const char* kReplica = "replica";
constexpr const char* kHubAnnotation = "edgemesh.io/hub";
constexpr size_t kMaxPlaces = 20'000;
constexpr size_t kMaxSiblings = 64;

// An object's name (RFC 1123): of two clouds on one machine the ports differ.
std::string lease_name(const std::string& host, const std::string& hub) {
  std::string out = "edgemesh-cloud-";
  for (const char c : host.substr(0, 100)) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    out += letter ? c : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : '-';
  }
  const size_t colon = hub.rfind(':');
  return out + "-" + (colon == std::string::npos ? "0" : hub.substr(colon + 1));
}

http::ClientOptions client_options(const Siblings::Options& options) {
  http::ClientOptions out;
  out.tls = options.tls;
  out.connect_timeout = options.patience;
  out.request_timeout = options.patience;
  out.max_body = 4096;
  return out;
}

kube::Informer::Options informer_options() {
  kube::Informer::Options out;
  out.type = kube::kLeases;
  out.ns = kNamespace;
  out.label_selector = fmt::format("{}={}", kLabel, kReplica);
  out.keep_json = false;
  return out;
}

}  // namespace

struct Siblings::Round {
  std::string to;
  std::vector<std::string> asked;
  size_t missing = 0;  // answers
  bool all = false;    // none is left to be asked
  bool done = false;
  std::optional<Error> failure;  // of one that should have known
};

Siblings::Siblings(io::Loop& loop, kube::Client& client, Options options, obs::Registry& registry)
    : loop_(loop),
      client_(client),
      options_(std::move(options)),
      name_(lease_name(options_.host, options_.hub)),
      http_(loop, client_options(options_)),
      informer_(loop, client, informer_options(),
                {.on_upsert = [this](const auto& object) { on_lease(object); },
                 .on_delete = [this](const auto& object) { siblings_.erase(object.name); },
                 .on_synced = [] {},
                 .on_error =
                     [](const Error& error) {
                       EM_LOG(kDebug, "siblings", "leases: {}", error.message);
                     }}),
      renew_timer_(loop, [this] { renew(); }),
      passed_(registry.counter("edgemesh_siblings_passed_total",
                               "Signals to nodes of other clouds that were delivered.")),
      failed_(registry.counter("edgemesh_siblings_failed_total",
                               "Signals that no other cloud could deliver.")) {}

Siblings::~Siblings() {
  *alive_ = false;
}

void Siblings::start() {
  renew();
  renew_timer_.start_repeating(options_.renew_every);
  informer_.start();
}

void Siblings::renew() {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options_.lifetime).count();
  const Json change{{"metadata",
                     {{"name", name_},
                      {"namespace", kNamespace},
                      {"labels", {{kLabel, kReplica}}},
                      {"annotations", {{kHubAnnotation, options_.hub}}}}},
                    {"spec",
                     {{"holderIdentity", options_.identity},
                      {"leaseDurationSeconds", seconds},
                      {"renewTime", kube::rfc3339(loop_.clock().wall_now(), true)}}}};
  auto note = [this](const Result<std::string>& result) {
    const std::string error = result ? std::string() : result.error().message;
    if (error != last_error_ && !error.empty())
      EM_LOG(kWarn, "siblings", "other clouds cannot be told where this one is: {}", error);
    last_error_ = error;
  };
  client_.patch(kube::kLeases, kNamespace, name_, kube::PatchKind::kMerge, change.dump(), {},
                [this, alive = alive_, change, note](Result<std::string> result) {
                  if (!*alive) return;
                  if (result || result.error().code != ErrorCode::kNotFound) return note(result);
                  Json lease = change;
                  lease["apiVersion"] = "coordination.k8s.io/v1";
                  lease["kind"] = "Lease";
                  client_.create(kube::kLeases, kNamespace, lease.dump(), {},
                                 [alive, note](const Result<std::string>& made) {
                                   if (*alive) note(made);
                                 });
                });
}

void Siblings::stop(UniqueFunction<void()> done) {
  renew_timer_.stop();
  client_.remove(kube::kLeases, kNamespace, name_, {},
                 [alive = alive_, done = std::move(done)](const Result<std::string>&) mutable {
                   if (*alive) done();
                 });
}

void Siblings::on_lease(const kube::Informer::Object& object) {
  if (object.name == name_) return;
  const Json lease = Json::parse(object.json, nullptr, false);
  const std::string renewed = kube::text_at(lease, "spec", "renewTime");
  const Json* meta = kube::find(lease, "metadata");
  const std::string hub =
      meta == nullptr ? std::string() : kube::text_at(*meta, "annotations", kHubAnnotation);
  if (const auto parsed = config::HostPort::parse(hub); !parsed || parsed->port == 0) {
    EM_LOG(kWarn, "siblings", "lease {} names no hub: '{}'", object.name, hub.substr(0, 100));
    siblings_.erase(object.name);
    return;
  }
  if (!siblings_.contains(object.name)) {
    if (siblings_.size() >= kMaxSiblings) return;
    EM_LOG(kInfo, "siblings", "another cloud is at {}", hub);
  }
  Sibling& sibling = siblings_[object.name];
  sibling.hub = hub;
  if (sibling.renewed == renewed) return;
  sibling.renewed = renewed;
  sibling.seen = loop_.now();
}

std::vector<std::string> Siblings::hubs() const {
  std::vector<std::string> out;
  for (const auto& [name, sibling] : siblings_)
    if (loop_.now() - sibling.seen < options_.lifetime) out.push_back(sibling.hub);
  return out;
}

void Siblings::pass(const std::string& from, const std::string& to, std::string content,
                    Done done) {
  auto refuse = [&](Result<> why) {
    failed_.add();
    loop_.defer([alive = alive_, done = std::move(done), why = std::move(why)]() mutable {
      if (*alive) done(std::move(why));
    });
  };
  if (hubs().empty()) return refuse(fail(ErrorCode::kNotFound, "node {} is not connected", to));
  const auto queue = waiting_.find(to);
  if (waiting_count_ >= options_.max_waiting ||
      (queue != waiting_.end() && queue->second.size() >= options_.max_waiting_a_node))
    return refuse(fail(ErrorCode::kResourceExhausted, "node {} gets too many signals", to));
  ++waiting_count_;
  auto& signals = waiting_[to];
  signals.push_back({from, std::move(content), std::move(done)});
  if (signals.size() == 1) next(to);
}

void Siblings::next(const std::string& to) {
  auto round = std::make_shared<Round>();
  round->to = to;
  const std::vector<std::string> all = hubs();
  const auto place = places_.find(to);
  const bool known =
      place != places_.end() && std::find(all.begin(), all.end(), place->second) != all.end();
  if (known) return ask(round, {place->second});
  round->all = true;
  ask(round, all);
}

void Siblings::ask(const std::shared_ptr<Round>& round, const std::vector<std::string>& hubs) {
  const Signal& signal = waiting_[round->to].front();
  for (const std::string& hub : hubs) {
    if (std::find(round->asked.begin(), round->asked.end(), hub) != round->asked.end()) continue;
    round->asked.push_back(hub);
    ++round->missing;
    http::ClientRequest request;
    request.method = "POST";
    request.url = fmt::format("https://{}{}{}", hub, kSignalPath, round->to);
    request.headers = {{kSignalSender, signal.from}, {"Content-Type", "application/json"}};
    request.body = signal.content;
    http_.request(std::move(request), [this, round, hub](const Result<http::Response>& answer) {
      on_answer(round, hub, answer);
    });
  }
  if (round->missing > 0) return;
  loop_.defer([this, alive = alive_, round] {
    if (*alive) finish(round, fail(ErrorCode::kNotFound, "node {} is not connected", round->to));
  });
}

void Siblings::on_answer(const std::shared_ptr<Round>& round, const std::string& hub,
                         const Result<http::Response>& answer) {
  --round->missing;
  if (round->done) return;
  if (answer && answer->status / 100 == 2) {
    if (places_.size() >= kMaxPlaces) places_.clear();
    places_[round->to] = hub;
    return finish(round, {});
  }
  if (answer && answer->status == 429)
    return finish(round,
                  fail(ErrorCode::kResourceExhausted, "node {} gets too many signals", round->to));
  if (!answer || answer->status != 404) {
    const std::string why =
        answer ? fmt::format("answers {}", answer->status) : answer.error().message;
    EM_LOG(kDebug, "siblings", "the cloud at {}: {}", hub, why);
    round->failure = Error{
        ErrorCode::kUnavailable,
        fmt::format("node {} is not connected, or to the cloud at {}: {}", round->to, hub, why)};
  }
  if (round->missing > 0) return;
  if (!std::exchange(round->all, true)) {
    places_.erase(round->to);
    return ask(round, hubs());
  }
  if (round->failure) return finish(round, fail(std::move(*round->failure)));
  finish(round, fail(ErrorCode::kNotFound, "node {} is not connected", round->to));
}

void Siblings::finish(const std::shared_ptr<Round>& round, Result<> result) {
  round->done = true;
  (result ? passed_ : failed_).add();
  const auto queue = waiting_.find(round->to);
  Done done = std::move(queue->second.front().done);
  queue->second.pop_front();
  --waiting_count_;
  if (queue->second.empty())
    waiting_.erase(queue);
  else
    next(round->to);
  done(std::move(result));
}

}  // namespace edgemesh::cloud
