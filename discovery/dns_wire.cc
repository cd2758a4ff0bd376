#include "discovery/dns_wire.h"

#include <algorithm>
#include <cstring>

namespace edgemesh::discovery::dns {

namespace {

uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? static_cast<uint8_t>(c + 32) : c; }

// Reads the question's name, lower case. A pointer there could only point at the header.
std::optional<size_t> read_name(std::span<const uint8_t> message, size_t at, Name& name) {
  size_t size = 0;
  name.labels = 0;
  for (;;) {
    if (at >= message.size()) return std::nullopt;
    uint8_t length = message[at];
    if (length > 63 || size + 1 + length > kMaxName - (length == 0 ? 0 : 1)) return std::nullopt;
    if (at + 1 + length > message.size()) return std::nullopt;
    name.wire[size] = length;
    if (length == 0) break;
    name.offsets[name.labels++] = static_cast<uint8_t>(size);
    for (size_t i = 1; i <= length; ++i) name.wire[size + i] = lower(message[at + i]);
    size += 1 + length;
    at += 1 + length;
  }
  name.size = static_cast<uint8_t>(size + 1);
  return at + 1;
}

// One additional record of a query; false: malformed.
bool read_additional(std::span<const uint8_t> message, size_t& at, Query& query) {
  size_t start = at;
  auto behind = skip_name(message, at);
  if (!behind || *behind + 10 > message.size()) return false;
  const uint8_t* fixed = message.data() + *behind;
  size_t end = *behind + 10 + get16(fixed + 8);
  if (end > message.size()) return false;
  at = end;
  if (get16(fixed) != kOpt) return true;
  if (query.edns || message[start] != 0) return false;
  query.edns = true;
  query.edns_payload = get16(fixed + 2);
  query.edns_version = fixed[5];
  query.dnssec_ok = (fixed[6] & 0x80) != 0;
  return true;
}

}  // namespace

std::optional<size_t> skip_name(std::span<const uint8_t> message, size_t at) {
  size_t size = 0;
  while (at < message.size()) {
    uint8_t length = message[at];
    if (length >= 0xc0) return at + 2 <= message.size() ? std::optional(at + 2) : std::nullopt;
    if (length > 63) return std::nullopt;
    size += 1 + length;
    if (size > kMaxName) return std::nullopt;
    at += 1 + length;
    if (length == 0) return at;
  }
  return std::nullopt;
}

bool Name::ends_with(const Name& suffix) const {
  if (labels < suffix.labels) return false;
  size_t from = labels == suffix.labels ? 0 : offsets[labels - suffix.labels];
  return size - from == suffix.size && std::memcmp(&wire[from], suffix.wire.data(), suffix.size) == 0;
}

std::optional<Name> Name::parse(std::string_view text) {
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (text.empty() || text.size() > kMaxName - 2) return std::nullopt;
  Name name;
  size_t size = 0;
  while (true) {
    size_t dot = text.find('.');
    std::string_view label = text.substr(0, dot);
    if (label.empty() || label.size() > 63) return std::nullopt;
    name.offsets[name.labels++] = static_cast<uint8_t>(size);
    name.wire[size++] = static_cast<uint8_t>(label.size());
    for (char c : label) name.wire[size++] = lower(static_cast<uint8_t>(c));
    if (dot == std::string_view::npos) break;
    text.remove_prefix(dot + 1);
  }
  name.wire[size++] = 0;
  name.size = static_cast<uint8_t>(size);
  return name;
}

std::optional<Name> Name::join(std::initializer_list<std::string_view> front, const Name& tail) {
  Name name;
  size_t size = 0;
  for (std::string_view label : front) {
    if (label.empty() || label.size() > 63 || size + 1 + label.size() + tail.size > kMaxName)
      return std::nullopt;
    name.offsets[name.labels++] = static_cast<uint8_t>(size);
    name.wire[size++] = static_cast<uint8_t>(label.size());
    for (char c : label) name.wire[size++] = lower(static_cast<uint8_t>(c));
  }
  for (size_t i = 0; i < tail.labels; ++i)
    name.offsets[name.labels++] = static_cast<uint8_t>(size + tail.offsets[i]);
  std::memcpy(&name.wire[size], tail.wire.data(), tail.size);
  name.size = static_cast<uint8_t>(size + tail.size);
  return name;
}

std::optional<size_t> expand_name(std::span<const uint8_t> message, size_t at, Name& name) {
  size_t size = 0;
  size_t behind = 0;
  size_t lowest = at;  // each pointer goes further back, so that the walk ends
  name.labels = 0;
  for (;;) {
    if (at >= message.size()) return std::nullopt;
    uint8_t length = message[at];
    if (length >= 0xc0) {
      if (at + 2 > message.size()) return std::nullopt;
      if (behind == 0) behind = at + 2;
      at = get16(&message[at]) & 0x3fff;
      if (at >= lowest) return std::nullopt;
      lowest = at;
      continue;
    }
    if (length > 63 || at + 1 + length > message.size() ||
        size + 1 + length > kMaxName - (length == 0 ? 0 : 1))
      return std::nullopt;
    name.wire[size] = length;
    if (length == 0) break;
    name.offsets[name.labels++] = static_cast<uint8_t>(size);
    for (size_t i = 1; i <= length; ++i) name.wire[size + i] = lower(message[at + i]);
    size += 1 + length;
    at += 1 + length;
  }
  name.size = static_cast<uint8_t>(size + 1);
  return behind != 0 ? behind : at + 1;
}

Parsed parse_query(std::span<const uint8_t> message, Query& query) {
  if (message.size() < kHeaderBytes) return Parsed::kDrop;
  query.id = get16(message.data());
  query.flags = get16(message.data() + 2);
  query.question = {};
  query.edns = false;
  query.dnssec_ok = false;
  query.edns_payload = 0;
  query.edns_version = 0;
  if ((query.flags & kFlagQr) != 0) return Parsed::kDrop;
  if ((query.flags >> 11 & 15) != 0) return Parsed::kNotImp;
  if (get16(message.data() + 4) != 1 || get16(message.data() + 6) != 0 || get16(message.data() + 8) != 0)
    return Parsed::kFormErr;
  auto behind = read_name(message, kHeaderBytes, query.name);
  if (!behind || *behind + 4 > message.size()) return Parsed::kFormErr;
  query.type = get16(message.data() + *behind);
  query.klass = get16(message.data() + *behind + 2);
  size_t at = *behind + 4;
  for (int n = get16(message.data() + 10); n > 0; --n)
    if (!read_additional(message, at, query)) return Parsed::kFormErr;
  if (at != message.size()) return Parsed::kFormErr;
  query.question = message.subspan(kHeaderBytes, *behind + 4 - kHeaderBytes);
  return Parsed::kQuery;
}

Writer::Writer(std::span<uint8_t> out, size_t limit, const Query& query)
    : out_(out),
      limit_(std::min(limit, out.size())),
      edns_(query.edns),
      dnssec_ok_(query.dnssec_ok),
      // Opcode, RD and CD go back as they came (RFC 1035, 4.1.1; RFC 4035, 3.2.2).
      flags_(static_cast<uint16_t>(kFlagQr | kFlagRa | (query.flags & (0x7800 | kFlagRd | kFlagCd)))) {
  put16(out_.data(), query.id);
  at_ = kHeaderBytes;
  if (edns_) limit_ -= kOptBytes;
  if (query.question.empty()) return;
  bytes(query.question.data(), query.question.size());
  questions_ = 1;
}

void Writer::bytes(const void* data, size_t n) {
  std::memcpy(out_.data() + at_, data, n);
  at_ += n;
}
void Writer::u16(uint16_t v) {
  put16(out_.data() + at_, v);
  at_ += 2;
}
void Writer::u32(uint32_t v) {
  put32(out_.data() + at_, v);
  at_ += 4;
}

bool Writer::begin(Section section, uint16_t owner, const Name* owner_name, uint16_t type,
                   uint32_t ttl, size_t data_bytes) {
  size_t name_bytes = owner_name != nullptr ? owner_name->size : 2;
  if (at_ + name_bytes + 10 + data_bytes > limit_) {
    if (section != Section::kAdditional) flags_ |= kFlagTc;
    return false;
  }
  if (owner_name != nullptr)
    bytes(owner_name->wire.data(), owner_name->size);
  else
    u16(static_cast<uint16_t>(0xc000 | owner));
  u16(type);
  u16(kClassIn);
  u32(ttl);
  u16(static_cast<uint16_t>(data_bytes));
  return true;
}

bool Writer::end(Section section) {
  ++counts_[static_cast<size_t>(section)];
  return true;
}

bool Writer::address(Section section, uint16_t owner, uint32_t ttl, const IpAddr& ip) {
  if (!begin(section, owner, nullptr, ip.is_v6() ? kAaaa : kA, ttl, ip.size())) return false;
  bytes(ip.bytes(), ip.size());
  return end(section);
}

bool Writer::name_record(Section section, uint16_t owner, Type type, uint32_t ttl, const Name& target,
                         uint16_t* target_at) {
  if (!begin(section, owner, nullptr, type, ttl, target.size)) return false;
  if (target_at != nullptr) *target_at = static_cast<uint16_t>(at_);
  bytes(target.wire.data(), target.size);
  return end(section);
}

bool Writer::srv(uint16_t owner, uint32_t ttl, uint16_t priority, uint16_t weight, uint16_t port,
                 const Name& target, uint16_t* target_at) {
  if (!begin(Section::kAnswer, owner, nullptr, kSrv, ttl, 6u + target.size)) return false;
  u16(priority);
  u16(weight);
  u16(port);
  *target_at = static_cast<uint16_t>(at_);
  bytes(target.wire.data(), target.size);
  return end(Section::kAnswer);
}

bool Writer::soa(Section section, const Name& zone, uint32_t ttl, uint32_t serial) {
  static constexpr uint8_t kNsLabel[] = {2, 'n', 's', 3, 'd', 'n', 's'};
  static constexpr uint8_t kMailLabel[] = {10, 'h', 'o', 's', 't', 'm', 'a', 's', 't', 'e', 'r'};
  size_t data = sizeof kNsLabel + sizeof kMailLabel + 2 * size_t{zone.size} + 20;
  if (!begin(section, 0, &zone, kSoa, ttl, data)) return false;
  bytes(kNsLabel, sizeof kNsLabel);
  bytes(zone.wire.data(), zone.size);
  bytes(kMailLabel, sizeof kMailLabel);
  bytes(zone.wire.data(), zone.size);
  u32(serial);
  u32(7200);   // refresh, retry, expire: for secondary servers, of which there are none
  u32(1800);
  u32(86400);
  u32(ttl);  // negative answers live as long
  return end(section);
}

bool Writer::text(Section section, uint16_t owner, Type type, uint32_t ttl, std::string_view data) {
  if (!begin(section, owner, nullptr, type, ttl, data.size())) return false;
  bytes(data.data(), data.size());
  return end(section);
}

bool Writer::raw(Section section, const Name& owner, uint16_t type, uint32_t ttl, std::string_view data) {
  if (!begin(section, 0, &owner, type, ttl, data.size())) return false;
  bytes(data.data(), data.size());
  return end(section);
}

std::span<const uint8_t> Writer::finish() {
  put16(out_.data() + 2, static_cast<uint16_t>(flags_ | (rcode_ & 15)));
  put16(out_.data() + 4, questions_);
  put16(out_.data() + 6, counts_[0]);
  put16(out_.data() + 8, counts_[1]);
  put16(out_.data() + 10, static_cast<uint16_t>(counts_[2] + (edns_ ? 1 : 0)));
  if (edns_) {
    out_[at_++] = 0;
    u16(kOpt);
    u16(static_cast<uint16_t>(kEdnsPayload));
    out_[at_++] = static_cast<uint8_t>(rcode_ >> 4);
    out_[at_++] = 0;  // version
    u16(dnssec_ok_ ? 0x8000 : 0);
    u16(0);
  }
  return out_.first(at_);
}

size_t udp_limit(const Query& query) {
  if (!query.edns) return kPlainUdp;
  return std::clamp<size_t>(query.edns_payload, kPlainUdp, kEdnsPayload);
}

}  // namespace edgemesh::discovery::dns
