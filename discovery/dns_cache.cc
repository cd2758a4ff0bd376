#include "discovery/dns_cache.h"

#include <algorithm>
#include <cstring>

namespace edgemesh::discovery::dns {

namespace {

struct Record {
  size_t start = 0;
  size_t fixed = 0;  // offset of type, class, ttl, length
  size_t data = 0;
  size_t end = 0;
  uint16_t type = 0;
};

std::optional<Record> read_record(std::span<const uint8_t> message, size_t at) {
  auto behind = skip_name(message, at);
  if (!behind || *behind + 10 > message.size()) return std::nullopt;
  Record r{at, *behind, *behind + 10, 0, get16(&message[*behind])};
  r.end = r.data + get16(&message[r.fixed + 8]);
  if (r.end > message.size()) return std::nullopt;
  return r;
}

uint32_t age_s(const Answer& answer, TimePoint now) {
  auto age = std::chrono::duration_cast<std::chrono::seconds>(now - answer.stored).count();
  return age > 0 ? static_cast<uint32_t>(age) : 0;
}

bool same_question(std::span<const uint8_t> message, std::span<const uint8_t> question) {
  if (message.size() < kHeaderBytes + question.size()) return false;
  return std::equal(question.begin(), question.end(), message.begin() + kHeaderBytes,
                    [](uint8_t a, uint8_t b) {
                      auto low = [](uint8_t c) { return c >= 'A' && c <= 'Z' ? c + 32 : int{c}; };
                      return low(a) == low(b);
                    });
}

// TTL of a "no such name" or "no such record": the SOA's own and its minimum, whichever is less.
uint32_t negative_ttl(std::span<const uint8_t> message, const Record& soa) {
  if (soa.end - soa.data < 20) return 0;
  return std::min(get32(&message[soa.fixed + 4]), get32(&message[soa.end - 4]));
}

}  // namespace

Result<Answer> parse_answer(std::span<const uint8_t> message, std::span<const uint8_t> question,
                            const TtlLimits& limits, TimePoint now) {
  auto wrong = [](const char* what) { return fail(ErrorCode::kProtocol, "upstream answer: {}", what); };
  if (message.size() > kMaxMessage || !same_question(message, question)) return wrong("another question");
  if ((message[2] & 0x80) == 0 || get16(&message[4]) != 1) return wrong("not an answer");
  Answer answer;
  answer.question_bytes = question.size();
  answer.stored = now;
  uint16_t rcode = message[3] & 15;
  uint32_t ttl = UINT32_MAX;
  uint32_t no_ttl = 0;
  size_t at = kHeaderBytes + question.size();
  size_t keep = 0;  // up to OPT; what comes behind it is additional and could be left out
  uint16_t counts[3] = {get16(&message[6]), get16(&message[8]), get16(&message[10])};
  uint16_t additional = 0;
  for (int section = 0; section < 3; ++section) {
    for (uint16_t n = 0; n < counts[section]; ++n) {
      auto r = read_record(message, at);
      if (!r) return wrong("malformed record");
      at = r->end;
      if (r->type == kOpt && section != 2) return wrong("OPT in the wrong place");  // RFC 6891, 6.1.1
      if (r->type == kOpt && keep == 0) keep = r->start;
      if (keep != 0) continue;
      answer.ttl_offsets.push_back(static_cast<uint16_t>(r->fixed + 4));
      uint32_t own = get32(&message[r->fixed + 4]);
      if (own > INT32_MAX) own = 0;  // RFC 2181, 8
      if (section == 0) ttl = std::min(ttl, own);
      if (section == 1 && r->type == kSoa) no_ttl = negative_ttl(message, *r);
      if (section == 2) ++additional;
    }
  }
  if (keep == 0) keep = at;
  bool negative = rcode == kNxDomain || counts[0] == 0;
  if (rcode == kNoError || rcode == kNxDomain)
    answer.ttl_s = negative ? std::min(no_ttl, limits.negative) : std::min(ttl, limits.positive);
  answer.message.assign(message.begin(), message.begin() + static_cast<ptrdiff_t>(keep));
  put16(&answer.message[10], additional);
  return answer;
}

std::span<const uint8_t> Answer::write(const Query& query, std::span<uint8_t> out, size_t limit,
                                       TimePoint now) const {
  size_t opt = query.edns ? kOptBytes : 0;
  bool cut = message.size() + opt > std::min(limit, out.size());
  size_t size = cut ? kHeaderBytes + question_bytes : message.size();
  std::memcpy(out.data(), message.data(), size);
  put16(&out[0], query.id);
  // From upstream: AA no more (it may come from the cache), AD only for who understands it (RFC 6840, 5.7).
  uint16_t keep = query.dnssec_ok || (query.flags & kFlagAd) != 0 ? kFlagAd : 0;
  uint16_t flags = static_cast<uint16_t>((get16(&message[2]) & (keep | 15)) | kFlagQr | kFlagRa |
                                         (query.flags & (kFlagRd | kFlagCd)) | (cut ? kFlagTc : 0));
  put16(&out[2], flags);
  std::memcpy(&out[kHeaderBytes], query.question.data(), question_bytes);
  if (cut) {
    std::memset(&out[6], 0, 6);
  } else if (uint32_t age = age_s(*this, now); true) {
    for (uint16_t offset : ttl_offsets) {
      uint32_t ttl = get32(&message[offset]);
      put32(&out[offset], ttl > INT32_MAX ? 0 : ttl > age ? ttl - age : 0);
    }
  }
  if (!query.edns) return out.first(size);
  put16(&out[10], static_cast<uint16_t>(get16(&out[10]) + 1));
  uint8_t* p = &out[size];
  std::memset(p, 0, kOptBytes);
  put16(p + 1, kOpt);
  put16(p + 3, static_cast<uint16_t>(kEdnsPayload));
  if (query.dnssec_ok) p[7] = 0x80;
  return out.first(size + kOptBytes);
}

void append_answers(const Answer& answer, Writer& out, TimePoint now) {
  std::span<const uint8_t> message(answer.message);
  uint32_t age = age_s(answer, now);
  size_t at = kHeaderBytes + answer.question_bytes;
  for (uint16_t n = get16(&message[6]); n > 0; --n) {
    auto r = read_record(message, at);
    if (!r) return;
    at = r->end;
    Name owner, target;
    if (!expand_name(message, r->start, owner)) return;
    uint32_t ttl = get32(&message[r->fixed + 4]);
    ttl = ttl > INT32_MAX || ttl < age ? 0 : ttl - age;
    std::string_view data(reinterpret_cast<const char*>(&message[0]) + r->data, r->end - r->data);  // NOLINT
    if (r->type == kCname) {
      if (!expand_name(message, r->data, target)) return;
      data = target.bytes();
    } else if (r->type != kA && r->type != kAaaa) {
      continue;
    }
    if (!out.raw(Writer::Section::kAnswer, owner, r->type, ttl, data)) return;
  }
}

std::shared_ptr<const Answer> Cache::find(std::string_view key, TimePoint now) {
  auto it = index_.find(key);
  if (it == index_.end()) return nullptr;
  const Answer& answer = *it->second->answer;
  if (now - answer.stored >= std::chrono::seconds(answer.ttl_s)) {
    drop(it->second);
    return nullptr;
  }
  rows_.splice(rows_.begin(), rows_, it->second);
  return it->second->answer;
}

void Cache::put(std::string_view key, std::shared_ptr<const Answer> answer) {
  if (answer->ttl_s == 0 || max_entries_ == 0) return;
  if (auto it = index_.find(key); it != index_.end()) drop(it->second);
  rows_.push_front({std::string(key), std::move(answer)});
  index_.emplace(rows_.front().key, rows_.begin());
  bytes_ += cost(rows_.front());
  while (!rows_.empty() && (rows_.size() > max_entries_ || bytes_ > max_bytes_))
    drop(std::prev(rows_.end()));
}

void Cache::drop(Rows::iterator row) {
  bytes_ -= cost(*row);
  index_.erase(row->key);
  rows_.erase(row);
}

void Cache::clear() {
  index_.clear();
  rows_.clear();
  bytes_ = 0;
}

}  // namespace edgemesh::discovery::dns
