// Forwarder: asks the upstream servers for names outside the cluster. Equal questions that are under
// way are asked once, which also ends a circle of servers that forward to each other after one round.
// Threads: one loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/function.h"
#include "core/io/resolver.h"
#include "discovery/dns_cache.h"

namespace edgemesh::discovery::dns {

// What is asked upstream: without the client's id and case.
class Question {
 public:
  Question(const Name& name, uint16_t type, bool dnssec_ok, bool checking_disabled);
  std::string_view key() const { return {key_.data(), size_}; }
  // Name, type and class in wire form.
  std::span<const uint8_t> wire() const;
  bool dnssec_ok() const { return (key_[size_ - 1] & 1) != 0; }
  bool checking_disabled() const { return (key_[size_ - 1] & 2) != 0; }

 private:
  std::array<char, kMaxName + 5> key_;
  size_t size_;
};

class Forwarder {
 public:
  struct Options {
    io::Resolver::Options resolver;  // no servers: every question fails at once
    size_t max_waiting = 1024;
    size_t cache_entries = 4096;
    size_t cache_bytes = 2 << 20;
    TtlLimits ttl;
  };
  Forwarder(io::Loop& loop, Options options);
  ~Forwarder();

  Result<> set_servers(std::vector<SockAddr> servers);
  std::shared_ptr<const Answer> cached(const Question& question);
  // null: no upstream answered, or too many wait. Never called from within ask().
  using Done = UniqueFunction<void(std::shared_ptr<const Answer>)>;
  void ask(const Question& question, Done done);

  size_t waiting() const { return waiting_; }
  size_t cache_entries() const { return cache_.entries(); }
  uint64_t failures() const { return failures_; }

 private:
  void fail_later(Done done);
  void on_answer(const std::string& key, Result<std::span<const uint8_t>> answer);

  io::Loop& loop_;
  Options options_;
  std::unique_ptr<io::Resolver> resolver_;
  Cache cache_;
  std::unordered_map<std::string, std::vector<Done>> asked_;  // by key: who waits for it
  size_t waiting_ = 0;
  uint64_t failures_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::discovery::dns
