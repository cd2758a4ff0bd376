#include "agent/meta/outbox.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/hub_client.h"
#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::agent {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kType = "outbox";

std::string key_of(std::string_view resource, std::string_view operation) {
  return fmt::format("outbox/{}|{}", resource, operation);
}

// The metav1.Status of an answer that refuses: {"ErrStatus":{..}} or
// {"Object":..,"Err":{"ErrStatus":..}}.
const Json* refusal(const Json& content) {
  if (const Json* status = kube::find(content, "ErrStatus")) return status;
  return kube::find(content, "Err", "ErrStatus");
}

// Will the same message be refused again?
bool is_final(int code) {
  return code >= 400 && code < 500 && code != 408 && code != 429;
}

}  // namespace

Outbox::Outbox(io::Loop& loop, Metastore& store, obs::Registry& registry)
    : Outbox(loop, store, Options{}, registry) {}

Outbox::Outbox(io::Loop& loop, Metastore& store, Options options, obs::Registry& registry)
    : loop_(loop),
      store_(store),
      options_(options),
      timer_(loop, [this] { pump(); }),
      size_(
          registry.gauge("edgemesh_outbox_messages", "Messages that the cloud has not confirmed.")),
      sent_(registry.counter("edgemesh_outbox_sent_total", "Messages sent, repetitions included.")),
      refused_(registry.counter("edgemesh_outbox_refused_total",
                                "Messages that the cloud refused for good.")) {}

Outbox::~Outbox() {
  *alive_ = false;
}

Result<> Outbox::start(bus::Bus& bus) {
  bus_ = &bus;
  std::vector<std::pair<uint64_t, std::string>> stored;
  EM_TRY_VOID(store_.for_each(kType, [&](const std::string& key, std::string_view value) {
    const Json json = Json::parse(value, nullptr, false);
    const Json* sequence = kube::find(json, "sequence");
    stored.emplace_back(
        sequence != nullptr && sequence->is_number_unsigned() ? sequence->get<uint64_t>() : 0, key);
  }));
  std::sort(stored.begin(), stored.end());
  for (const auto& [sequence, key] : stored) {
    const Sequence place = next_++;
    items_[place].key = key;
    by_key_[key] = place;
    ready_.insert(place);
  }
  size_.set(static_cast<int64_t>(items_.size()));
  if (!items_.empty()) {
    EM_LOG(kInfo, "outbox", "{} messages of the last run wait for the cloud", items_.size());
  }
  return {};
}

void Outbox::stop() {
  bus_ = nullptr;
  connected_ = false;
  timer_.stop();
}

void Outbox::on_connection(bool connected) {
  connected_ = connected;
  if (!connected) return;
  // Nothing that failed on the old connection says anything about this one.
  for (const auto& [when, sequence] : std::exchange(waiting_, {})) ready_.insert(sequence);
  pump();
}

Result<> Outbox::put(Item item) {
  const std::string key = key_of(item.resource, item.operation);
  auto known = by_key_.find(key);
  if (known == by_key_.end() && items_.size() >= options_.max_messages) {
    return fail(ErrorCode::kResourceExhausted, "{} messages wait for the cloud already",
                items_.size());
  }
  const Sequence sequence = known == by_key_.end() ? next_++ : known->second;
  std::string value = kube::to_text({{"sequence", sequence},
                                     {"resource", item.resource},
                                     {"operation", item.operation},
                                     {"source", item.source},
                                     {"answered", item.answered},
                                     {"content", std::move(item.content)}});
  if (!store_.put(key, kType, value)) {
    return fail(ErrorCode::kResourceExhausted, "{} {} cannot be stored", item.operation,
                item.resource);
  }
  by_key_[key] = sequence;
  Entry& entry = items_[sequence];
  const bool fresh = entry.key.empty();
  entry.key = key;
  ++entry.change;
  if (fresh) ready_.insert(sequence);
  size_.set(static_cast<int64_t>(items_.size()));
  fresh_[key] = std::move(value);
  if (std::exchange(turn_pending_, true)) return {};
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    turn_pending_ = false;
    pump();
    // What is put meanwhile waits for the next flush.
    std::vector<std::pair<std::string, uint64_t>> batch;
    for (const auto& [name, text] : fresh_)
      batch.emplace_back(name, items_.at(by_key_.at(name)).change);
    store_.flush([this, alive, batch = std::move(batch)](Result<>) {
      if (*alive) on_stored(batch);
    });
  });
  return {};
}

void Outbox::on_stored(const std::vector<std::pair<std::string, uint64_t>>& batch) {
  for (const auto& [key, change] : batch) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) continue;
    if (items_.at(it->second).change == change) fresh_.erase(key);
  }
}

void Outbox::cancel(std::string_view resource, std::string_view operation) {
  const auto it = by_key_.find(key_of(resource, operation));
  if (it != by_key_.end()) finish(it->second);
}

void Outbox::finish(Sequence sequence) {
  const auto it = items_.find(sequence);
  if (it == items_.end()) return;
  if (it->second.in_flight) --in_flight_;
  store_.remove(it->second.key);
  fresh_.erase(it->second.key);
  by_key_.erase(it->second.key);
  ready_.erase(sequence);
  std::erase_if(waiting_, [&](const auto& w) { return w.second == sequence; });
  items_.erase(it);
  size_.set(static_cast<int64_t>(items_.size()));
}

void Outbox::pump() {
  if (bus_ == nullptr || !connected_) return;
  const TimePoint now = loop_.now();
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    ready_.insert(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
  }
  while (in_flight_ < options_.max_in_flight && !ready_.empty()) {
    const Sequence sequence = *ready_.begin();
    ready_.erase(ready_.begin());
    if (!send(sequence, items_.at(sequence))) break;
  }
  arm();
}

void Outbox::arm() {
  if (waiting_.empty()) return timer_.stop();
  timer_.start_at(waiting_.begin()->first);
}

// False: nothing more can be sent now.
bool Outbox::send(Sequence sequence, Entry& entry) {
  std::string value;
  if (const auto it = fresh_.find(entry.key); it != fresh_.end()) {
    value = it->second;
  } else if (auto stored = store_.get(entry.key)) {
    value = std::move(*stored);
  }
  const Json json = Json::parse(value, nullptr, false);
  if (!json.is_object()) {
    EM_LOG(kError, "outbox", "{} cannot be read again; it is given up", entry.key);
    finish(sequence);
    return true;
  }
  bus::Message message =
      bus::make_message(kube::text_at(json, "source"), "meta", kube::text_at(json, "operation"),
                        kube::text_at(json, "resource"), kube::text_at(json, "content"));
  sent_.add();
  const Json* answered = kube::find(json, "answered");
  if (answered != nullptr && answered->is_boolean() && !answered->get<bool>()) {
    if (auto sent = bus_->send(kHubModule, std::move(message)); !sent) {
      retry(sequence, entry);
      return false;
    }
    finish(sequence);
    return true;
  }
  entry.in_flight = true;
  ++in_flight_;
  bus_->request(
      kHubModule, std::move(message),
      [this, alive = alive_, sequence, change = entry.change](Result<bus::Message> answer) {
        if (*alive) on_result(sequence, change, std::move(answer));
      },
      options_.answer_timeout);
  return true;
}

void Outbox::on_result(Sequence sequence, uint64_t change, Result<bus::Message> answer) {
  const auto it = items_.find(sequence);
  if (it == items_.end() || bus_ == nullptr) return;
  Entry& entry = it->second;
  if (std::exchange(entry.in_flight, false)) --in_flight_;
  const bool transient = !answer || answer->operation == "error";
  const Json content = transient ? Json() : Json::parse(answer->content, nullptr, false);
  const Json* status = refusal(content);
  const Json* code = status == nullptr ? nullptr : kube::find(*status, "code");
  const int number = code != nullptr && code->is_number_integer() ? code->get<int>() : 500;
  if (transient || (status != nullptr && !is_final(number))) {
    retry(sequence, entry);
    return pump();
  }
  std::string resource = answer->resource, operation = entry.key.substr(entry.key.rfind('|') + 1);
  if (entry.change == change) {
    finish(sequence);
  } else {
    entry.tries = 0;  // replaced while it was on its way
    ready_.insert(sequence);
  }
  if (status != nullptr) {
    refused_.add();
    const std::string why = kube::text_at(*status, "message");
    EM_LOG(kWarn, "outbox", "the cloud refuses {} {}: {}", operation, resource, why);
    if (on_answer_) on_answer_(resource, operation, fail(ErrorCode::kInvalidArgument, "{}", why));
  } else if (on_answer_) {
    on_answer_(resource, operation, std::move(answer->content));
  }
  pump();
}

void Outbox::retry(Sequence sequence, Entry& entry) {
  const int doublings = std::clamp(entry.tries++, 0, 6);
  const Duration wait = std::min(options_.retry_min * (1 << doublings), options_.retry_max);
  waiting_.emplace(loop_.now() + wait, sequence);
  arm();
}

}  // namespace edgemesh::agent
