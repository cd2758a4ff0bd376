#include "agent/edged/pod_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/hub_client.h"
#include "core/base/log.h"
#include "core/channel/message.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

constexpr const char* kType = "service-token";
constexpr const char* kPrefix = "edged/token/";
constexpr size_t kMostBytes = 64 << 10;  // of a token
constexpr int64_t kMostAge = 24 * 3600;
constexpr int64_t kClockStep = 300;  // a wall clock that went back by more was set anew
constexpr Duration kAnswerTimeout = seconds(10), kRetryMin = seconds(1), kRetryMax = seconds(60);

int64_t to_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<seconds>(time.time_since_epoch()).count();
}

int64_t number_at(const Json& object, const char* key) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

std::string account_of(const Pod& pod) {
  const std::string name = kube::text_at(*pod.json, "spec", "serviceAccountName");
  return name.empty() ? "default" : name;
}

std::string request_for(const Pod& pod, const std::string& audience, int64_t expiration_s) {
  Json spec{{"expirationSeconds", expiration_s},
            {"audiences", nullptr},
            {"boundObjectRef",
             {{"kind", "Pod"}, {"apiVersion", "v1"}, {"name", pod.name}, {"uid", pod.uid}}}};
  if (!audience.empty()) spec["audiences"] = Json::array({audience});
  return kube::to_text({{"kind", "TokenRequest"},
                        {"apiVersion", "authentication.k8s.io/v1"},
                        {"metadata", Json::object()},
                        {"spec", std::move(spec)}});
}

// {"ErrStatus":{...}}, a Status, or words: what a cloud answers instead of a token.
std::string refusal_in(const Json& answer, const std::string& text) {
  std::string message = kube::text_at(answer, "ErrStatus", "message");
  if (message.empty()) message = kube::text_at(answer, "message");
  if (message.empty()) message = text;
  constexpr size_t kMost = 500;
  return message.substr(0, kMost);
}

}  // namespace

PodTokens::PodTokens(bus::Bus& bus, agent::Metastore& store, std::function<bool()> connected,
                     OnNew on_new)
    : bus_(bus),
      store_(store),
      connected_(std::move(connected)),
      on_new_(std::move(on_new)),
      timer_(bus.loop(), [this] { look(); }) {
  load();
}

PodTokens::~PodTokens() {
  *alive_ = false;
}

void PodTokens::load() {
  const size_t prefix = std::string_view(kPrefix).size();
  auto read = store_.for_each(kType, [&](const std::string& key, std::string_view value) {
    const Json kept = Json::parse(value, nullptr, false);
    Token token;
    token.text = kube::text_at(kept, "token");
    token.came_s = number_at(kept, "came");
    token.life_s = number_at(kept, "life");
    if (!token.text.empty() && key.starts_with(kPrefix))
      tokens_.emplace(key.substr(prefix), std::move(token));
  });
  if (!read) EM_LOG(kWarn, "edged", "tokens of an earlier run: {}", read.error().message);
  if (!tokens_.empty()) timer_.start(kLookEvery);
}

Result<std::string> PodTokens::token(const Pod& pod, const std::string& audience,
                                     int64_t expiration_s) {
  const std::string key = fmt::format("{}/{}/{}", pod.uid, expiration_s, audience);
  auto it = tokens_.find(key);
  if (it == tokens_.end()) {
    if (tokens_.size() >= kMaxTokens)
      return fail(ErrorCode::kResourceExhausted, "more than {} tokens on this node", kMaxTokens);
    it = tokens_.try_emplace(key).first;
    if (!timer_.active()) timer_.start(kLookEvery);
  }
  Token& token = it->second;
  if (token.resource.empty()) {
    token.resource = fmt::format("{}/serviceaccounttoken/{}", pod.ns, account_of(pod));
    token.request = request_for(pod, audience, expiration_s);
  }
  if (due(token)) ask(key, token);
  if (!token.text.empty()) return token.text;
  const std::string what = fmt::format("the token of service account \"{}\"", account_of(pod));
  if (token.failures > 0) return fail(token.refusal.with_context(what));
  return fail(ErrorCode::kUnavailable, "{} is asked for", what);
}

bool PodTokens::due(const Token& token) const {
  if (token.text.empty()) return true;
  const int64_t now = to_seconds(bus_.loop().clock().wall_now());
  return now >= token.came_s + std::min(token.life_s - token.life_s / 5, kMostAge) ||
         now < token.came_s - kClockStep;
}

void PodTokens::ask(const std::string& key, Token& token) {
  if (token.asking || token.resource.empty() || asking_ >= kMaxAsking) return;
  if (bus_.loop().now() < token.ask_after || !connected_()) return;
  token.asking = true;
  ++asking_;
  bus_.request(
      agent::kHubModule, bus::make_message("edged", "meta", "query", token.resource, token.request),
      [this, alive = alive_, key](Result<bus::Message> answer) {
        if (*alive) on_answer(key, std::move(answer));
      },
      kAnswerTimeout);
}

void PodTokens::on_answer(const std::string& key, Result<bus::Message> answer) {
  --asking_;
  const auto it = tokens_.find(key);
  if (it == tokens_.end()) return;  // its pod is gone
  Token& token = it->second;
  token.asking = false;
  auto taken = answer ? take(token, *answer) : Result<>(fail(answer.error()));
  const std::string uid = key.substr(0, key.find('/'));
  if (!taken && taken.error().code == ErrorCode::kCancelled) return;  // the agent ends
  if (!taken) {
    const Duration wait = kRetryMin * (1 << std::min(token.failures++, 6));
    token.ask_after = bus_.loop().now() + std::min(wait, kRetryMax);
    EM_LOG(kWarn, "edged", "{}: {}", token.resource, taken.error().message);
    token.refusal = std::move(taken).error();
    if (token.text.empty()) on_new_(uid);  // the pod says why it waits
    return;
  }
  token.failures = 0;
  token.ask_after = bus_.loop().now() + kLookEvery;
  store_.put(
      kPrefix + key, kType,
      kube::to_text({{"token", token.text}, {"came", token.came_s}, {"life", token.life_s}}));
  on_new_(uid);
  look();  // others may have waited for their turn
}

Result<> PodTokens::take(Token& token, const bus::Message& answer) const {
  const std::string text = channel::content_text(answer);
  const Json object = Json::parse(text, nullptr, false);
  std::string got = kube::text_at(object, "status", "token");
  if (answer.operation == "error" || got.empty())
    return fail(ErrorCode::kNotFound, "the cloud gives none: {}", refusal_in(object, text));
  if (got.size() > kMostBytes) return fail(ErrorCode::kProtocol, "a token of {} bytes", got.size());
  const auto end = kube::parse_rfc3339(kube::text_at(object, "status", "expirationTimestamp"));
  if (!end) return fail(ErrorCode::kProtocol, "a token without an end");
  token.text = std::move(got);
  token.came_s = to_seconds(bus_.loop().clock().wall_now());
  // What the cloud gave may be less, or more, than was asked for.
  const Json* spec = kube::find(object, "spec");
  token.life_s = spec != nullptr ? number_at(*spec, "expirationSeconds") : 0;
  if (token.life_s <= 0) token.life_s = std::max<int64_t>(to_seconds(*end) - token.came_s, 0);
  return {};
}

void PodTokens::look() {
  if (tokens_.empty()) return timer_.stop();
  timer_.start(kLookEvery);
  for (auto& [key, token] : tokens_) {
    if (asking_ >= kMaxAsking) return;
    if (due(token)) ask(key, token);
  }
}

void PodTokens::erase(Tokens::iterator first, Tokens::iterator last) {
  for (auto it = first; it != last; ++it) store_.remove(kPrefix + it->first);
  tokens_.erase(first, last);
}

void PodTokens::forget(const std::string& uid) {
  // '0' is what comes after '/'.
  erase(tokens_.lower_bound(uid + "/"), tokens_.lower_bound(uid + "0"));
}

void PodTokens::forget_others(const std::set<std::string>& uids) {
  for (auto it = tokens_.begin(); it != tokens_.end();) {
    const auto next = std::next(it);
    if (!uids.contains(it->first.substr(0, it->first.find('/')))) erase(it, next);
    it = next;
  }
}

}  // namespace edgemesh::edged
