// Cache of upstream answers: bounded by entries and by bytes, the longest unused go first. Positive
// answers live as long as their shortest TTL, negative ones as RFC 2308 says; an answer without a
// usable TTL is not kept.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"
#include "discovery/dns_wire.h"

namespace edgemesh::discovery::dns {

// One upstream answer, checked: header, question and records without OPT.
struct Answer {
  std::vector<uint8_t> message;
  size_t question_bytes = 0;
  std::vector<uint16_t> ttl_offsets;
  uint32_t ttl_s = 0;  // 0: for those who asked now only
  TimePoint stored{};

  uint16_t rcode() const { return message[3] & 15; }
  size_t bytes() const { return sizeof *this + message.size() + ttl_offsets.size() * 2; }

  // Writes the answer for `query` (same name, type and class) into `out`; at most `limit` bytes, else
  // header and question with TC set. TTLs count down from when it was stored.
  std::span<const uint8_t> write(const Query& query, std::span<uint8_t> out, size_t limit,
                                 TimePoint now) const;
};

struct TtlLimits {
  uint32_t positive = 3600;
  uint32_t negative = 300;
};
// Checks the whole structure of an upstream's message, and that it answers `question` (wire form).
Result<Answer> parse_answer(std::span<const uint8_t> message, std::span<const uint8_t> question,
                            const TtlLimits& limits, TimePoint now);

// Copies the answer's addresses and aliases into `out`, for an alias of ours that led there.
void append_answers(const Answer& answer, Writer& out, TimePoint now);

class Cache {
 public:
  Cache(size_t max_entries, size_t max_bytes) : max_entries_(max_entries), max_bytes_(max_bytes) {}

  // null: none that is still valid.
  std::shared_ptr<const Answer> find(std::string_view key, TimePoint now);
  void put(std::string_view key, std::shared_ptr<const Answer> answer);
  void clear();
  size_t entries() const { return index_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Row {
    std::string key;
    std::shared_ptr<const Answer> answer;
  };
  using Rows = std::list<Row>;
  static size_t cost(const Row& row) { return 160 + row.key.size() + row.answer->bytes(); }
  void drop(Rows::iterator row);

  size_t max_entries_, max_bytes_;
  size_t bytes_ = 0;
  Rows rows_;  // the last used first
  std::unordered_map<std::string_view, Rows::iterator> index_;  // keys live in the rows
};

}  // namespace edgemesh::discovery::dns
