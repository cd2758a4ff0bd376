#include "proxy/exchange/remote_keys.h"

#include "core/base/log.h"
#include "core/http/message.h"
#include "proxy/exchange/l7_worker.h"

namespace edgemesh::proxy {

void KeyWait::wait(RemoteKeys& keys, const model::JwtProvider& provider, io::Task done) {
  done_ = std::move(done);
  keys.entries_.at(RemoteKeys::key_of(provider))->waiting.push_back(*this);
}

std::string RemoteKeys::key_of(const model::JwtProvider& provider) {
  return provider.jwks_cluster + " " + provider.jwks_url;
}

const KeySet* RemoteKeys::find(const model::JwtProvider& provider) {
  static const KeySet kNone;
  const std::string key = key_of(provider);
  auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (entries_.size() >= kMaxSets) return &kNone;
    found = entries_.emplace(key, std::make_unique<Entry>()).first;
  }
  Entry& entry = *found->second;
  if (worker_.loop().now() >= entry.until && entry.fetch == nullptr) fetch(entry, provider);
  return entry.known ? &entry.keys : nullptr;
}

void RemoteKeys::fetch(Entry& entry, const model::JwtProvider& provider) {
  HeadPtr head = take_head();
  head->method = "GET";
  std::string_view url = provider.jwks_url;
  head->scheme = url.starts_with("https://") ? "https" : "http";
  if (const size_t at = url.find("://"); at != std::string_view::npos) url.remove_prefix(at + 3);
  const size_t slash = std::min(url.find('/'), url.size());
  head->authority = head->keep(url.substr(0, slash));
  head->path = slash < url.size() ? head->keep(url.substr(slash)) : std::string_view("/");
  head->add_kept("accept", "application/json");
  SubRequestOptions options;
  options.cluster = provider.jwks_cluster;
  options.timeout = provider.jwks_timeout;
  options.max_answer = 1 << 20;
  entry.fetch = SubRequest::start(worker_, options, std::move(head), {},
                                  [this, &entry, refresh = provider.jwks_refresh](
                                      Result<SubAnswer> answer) {
                                    on_answer(entry, refresh, std::move(answer));
                                  });
}

void RemoteKeys::on_answer(Entry& entry, Duration refresh, Result<SubAnswer> answer) {
  auto done = std::move(entry.fetch);  // it is running
  Result<KeySet> keys = fail(ErrorCode::kUnavailable, "no keys");
  if (!answer)
    keys = fail(answer.error());
  else if (answer->head->status != 200)
    keys = fail(ErrorCode::kUnavailable, "status {}", answer->head->status);
  else
    keys = KeySet::parse(answer->body);
  entry.known = true;
  if (keys) {
    entry.keys = std::move(*keys);
    entry.until = worker_.loop().now() + refresh;
  } else {
    EM_LOG(kWarn, "proxy", "JWKS: {}; trying again at the next request", keys.error().message);
    entry.until = worker_.loop().now() + kRetryAfter;
  }
  while (KeyWait* next = entry.waiting.front()) {
    io::Task task = std::move(next->done_);
    next->cancel();
    task();
  }
}

}  // namespace edgemesh::proxy
