#include "discovery/dns_forwarder.h"

#include <sys/random.h>

#include <cstring>

namespace edgemesh::discovery::dns {

namespace {

// Upstreams that failed are not asked again at once for the same name (RFC 9520).
constexpr uint32_t kFailureTtlS = 1;

uint16_t random_id() {
  uint16_t id = 0;
  EM_CHECK(getrandom(&id, sizeof id, 0) == sizeof id);  // cannot fail for so few bytes
  return id;
}

std::vector<uint8_t> make_query(std::span<const uint8_t> question, bool dnssec_ok, bool checking_disabled) {
  std::vector<uint8_t> q(kHeaderBytes + question.size() + kOptBytes);
  put16(&q[0], random_id());
  put16(&q[2], static_cast<uint16_t>(kFlagRd | (checking_disabled ? kFlagCd : 0)));
  put16(&q[4], 1);
  put16(&q[10], 1);
  std::memcpy(&q[kHeaderBytes], question.data(), question.size());
  uint8_t* opt = &q[kHeaderBytes + question.size()];
  put16(opt + 1, kOpt);
  put16(opt + 3, static_cast<uint16_t>(kEdnsPayload));
  if (dnssec_ok) opt[7] = 0x80;
  return q;
}

std::shared_ptr<const Answer> make_failure(std::span<const uint8_t> question, TimePoint now) {
  auto answer = std::make_shared<Answer>();
  answer->message.resize(kHeaderBytes + question.size());
  put16(&answer->message[2], kFlagQr | kServFail);
  put16(&answer->message[4], 1);
  std::memcpy(&answer->message[kHeaderBytes], question.data(), question.size());
  answer->question_bytes = question.size();
  answer->ttl_s = kFailureTtlS;
  answer->stored = now;
  return answer;
}

}  // namespace

Question::Question(const Name& name, uint16_t type, bool dnssec_ok, bool checking_disabled) {
  std::memcpy(key_.data(), name.wire.data(), name.size);
  auto* p = reinterpret_cast<uint8_t*>(key_.data()) + name.size;  // NOLINT
  put16(p, type);
  put16(p + 2, kClassIn);
  p[4] = static_cast<uint8_t>((dnssec_ok ? 1 : 0) | (checking_disabled ? 2 : 0));
  size_ = name.size + 5u;
}

std::span<const uint8_t> Question::wire() const {
  return {reinterpret_cast<const uint8_t*>(key_.data()), size_ - 1};  // NOLINT
}

Forwarder::Forwarder(io::Loop& loop, Options options)
    : loop_(loop), options_(std::move(options)), cache_(options_.cache_entries, options_.cache_bytes) {}

Forwarder::~Forwarder() { *alive_ = false; }

Result<> Forwarder::set_servers(std::vector<SockAddr> servers) {
  // What was asked of the old servers is answered "failed": their clients ask again.
  auto asked = std::move(asked_);
  asked_.clear();
  for (auto& [key, waiters] : asked)
    for (Done& done : waiters) fail_later(std::move(done));
  waiting_ = 0;
  resolver_.reset();
  cache_.clear();
  options_.resolver.servers = std::move(servers);
  if (options_.resolver.servers.empty()) return {};
  EM_TRY(resolver_, io::Resolver::create(loop_, options_.resolver));
  return {};
}

std::shared_ptr<const Answer> Forwarder::cached(const Question& question) {
  return cache_.find(question.key(), loop_.now());
}

void Forwarder::fail_later(Done done) {
  loop_.defer([alive = alive_, done = std::move(done)] {
    if (*alive) done(nullptr);
  });
}

void Forwarder::ask(const Question& question, Done done) {
  if (!resolver_ || waiting_ >= options_.max_waiting) {
    ++failures_;
    return fail_later(std::move(done));
  }
  ++waiting_;
  auto [it, fresh] = asked_.try_emplace(std::string(question.key()));
  it->second.push_back(std::move(done));
  if (!fresh) return;
  auto message = make_query(question.wire(), question.dnssec_ok(), question.checking_disabled());
  resolver_->query(message, [this, key = it->first](Result<std::span<const uint8_t>> answer) {
    on_answer(key, std::move(answer));
  });
}

void Forwarder::on_answer(const std::string& key, Result<std::span<const uint8_t>> message) {
  auto it = asked_.find(key);
  if (it == asked_.end()) return;
  std::vector<Done> waiters = std::move(it->second);
  asked_.erase(it);
  waiting_ -= waiters.size();
  std::span<const uint8_t> question(reinterpret_cast<const uint8_t*>(key.data()),  // NOLINT
                                    key.size() - 1);
  TimePoint now = loop_.now();
  std::shared_ptr<const Answer> answer;
  if (message)
    if (auto parsed = parse_answer(*message, question, options_.ttl, now); parsed)
      answer = std::make_shared<const Answer>(std::move(*parsed));
  if (!answer) {
    ++failures_;
    answer = make_failure(question, now);
  }
  cache_.put(key, answer);
  auto alive = alive_;
  for (Done& done : waiters) {
    done(answer);
    if (!*alive) return;
  }
}

}  // namespace edgemesh::discovery::dns
