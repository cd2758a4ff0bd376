#include "cloud/api/bootstrap_tokens.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::text_at;
using nlohmann::json;

namespace {

constexpr std::string_view kNamespace = "kube-system";
constexpr std::string_view kNamePrefix = "bootstrap-token-";
constexpr std::string_view kType = "bootstrap.kubernetes.io/token";
constexpr std::string_view kUserPrefix = "system:bootstrap:";
constexpr std::string_view kGroup = "system:bootstrappers";
constexpr size_t kIdSize = 6, kSecretSize = 16;
constexpr size_t kMostGroup = 256;  // of what comes after system:bootstrappers:
// A wall clock may be set meanwhile.
constexpr Duration kMostWait = std::chrono::minutes(10);

bool is_lower(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool is_part(std::string_view text, size_t size) {
  return text.size() == size && std::all_of(text.begin(), text.end(), is_lower);
}

// Decoded; empty: absent, or no base64.
std::string data_at(const json& secret, const char* key) {
  auto bytes = tls::base64_decode(text_at(secret, "data", key));
  return bytes ? std::move(*bytes) : std::string();
}

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// Without an end: never. With one that cannot be read: at once.
std::optional<std::chrono::system_clock::time_point> end_of(const json& secret) {
  const std::string text = data_at(secret, "expiration");
  if (text.empty()) return std::nullopt;
  return kube::parse_rfc3339(text).value_or(std::chrono::system_clock::time_point::min());
}

bool is_group(std::string_view group) {
  if (!group.starts_with(kGroup) || group.size() < kGroup.size() + 2) return false;
  const std::string_view rest = group.substr(kGroup.size() + 1);
  return group[kGroup.size()] == ':' && rest.size() <= kMostGroup && is_lower(rest.back()) &&
         std::all_of(rest.begin(), rest.end(),
                     [](char c) { return is_lower(c) || c == ':' || c == '-'; });
}

// False: one of them is no group that a token may give.
bool add_groups(std::string_view list, std::vector<std::string>* out) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view group = list.substr(0, comma);
    if (!is_group(group)) return false;
    if (std::find(out->begin(), out->end(), group) == out->end()) out->emplace_back(group);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return true;
}

}  // namespace

BootstrapTokens::BootstrapTokens(ApiCore& core, bool cleans)
    : core_(core),
      secrets_(*core.registry().find(kube::kSecrets)),
      cleans_(cleans),
      timer_(core.loop(), [this] { clean(); }) {
  if (!cleans_) return;
  core_.store().add_observer(
      [this, alive = alive_](const ResourceInfo& resource, const Change& change) {
        if (!*alive || &resource != &secrets_) return;
        on_secret(*change.object, change.type == kube::EventType::kDeleted);
        wait();
      });
}

BootstrapTokens::~BootstrapTokens() {
  *alive_ = false;
}

void BootstrapTokens::start() {
  if (!cleans_) return;
  Filter filter;
  filter.ns = kNamespace;
  auto all = core_.store().list(secrets_, filter);
  for (const ObjectPtr& secret : all ? all->items : std::vector<ObjectPtr>())
    on_secret(*secret, false);
  wait();
}

std::optional<ApiUser> BootstrapTokens::authenticate(std::string_view token) const {
  const size_t dot = token.find('.');
  if (dot == std::string_view::npos || !is_part(token.substr(0, dot), kIdSize) ||
      !is_part(token.substr(dot + 1), kSecretSize)) {
    return std::nullopt;
  }
  const std::string id(token.substr(0, dot));
  ObjectPtr stored = core_.store().get(secrets_, kNamespace, std::string(kNamePrefix) + id);
  auto secret = stored != nullptr ? kube::parse_json(stored->text) : Result<json>(json());
  if (!secret || text_at(*secret, "type") != kType) return std::nullopt;
  if (kube::find(*secret, "metadata", "deletionTimestamp") != nullptr) return std::nullopt;
  if (!same(data_at(*secret, "token-secret"), token.substr(dot + 1))) return std::nullopt;
  if (data_at(*secret, "token-id") != id) return std::nullopt;
  if (data_at(*secret, "usage-bootstrap-authentication") != "true") return std::nullopt;
  const auto end = end_of(*secret);
  if (end && core_.loop().clock().wall_now() >= *end) return std::nullopt;
  ApiUser user;
  user.name = std::string(kUserPrefix) + id;
  user.groups = {std::string(kGroup)};
  if (!add_groups(data_at(*secret, "auth-extra-groups"), &user.groups)) return std::nullopt;
  user.groups.emplace_back(kAuthenticatedGroup);
  return user;
}

void BootstrapTokens::on_secret(const StoredObject& secret, bool gone) {
  if (secret.ns != kNamespace || !secret.name.starts_with(kNamePrefix)) return;
  ends_.erase(secret.name);
  auto object = gone ? Result<json>(json()) : kube::parse_json(secret.text);
  if (!object || text_at(*object, "type") != kType) return;
  if (kube::find(*object, "metadata", "deletionTimestamp") != nullptr) return;  // it goes
  if (const auto end = end_of(*object)) ends_[secret.name] = *end;
}

void BootstrapTokens::wait() {
  if (ends_.empty()) return timer_.stop();
  const auto first = std::min_element(ends_.begin(), ends_.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->second;
  const auto now = core_.loop().clock().wall_now();
  // An end before all time must not overflow.
  const Duration rest =
      first <= now ? Duration::zero() : std::min<Duration>(first - now, kMostWait);
  timer_.start(rest);
}

void BootstrapTokens::clean() {
  const auto now = core_.loop().clock().wall_now();
  for (auto it = ends_.begin(); it != ends_.end();) {
    if (it->second > now) {
      ++it;
      continue;
    }
    EM_LOG(kInfo, "api", "{} has expired: it is deleted", it->first);
    const std::string name = it->first;
    it = ends_.erase(it);
    core_.remove(secrets_, kNamespace, name, {}, [this, alive = alive_, name](auto done) {
      if (!*alive || done || done.error().code == 404) return;
      EM_LOG(kWarn, "api", "{}: {}", name, done.error().message);
      ends_[name] = core_.loop().clock().wall_now() + std::chrono::minutes(1);
      wait();
    });
  }
  wait();
}

}  // namespace edgemesh::cloud
