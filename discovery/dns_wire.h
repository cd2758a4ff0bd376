// DNS messages: a strict parser of queries and a writer of answers into a given buffer. No I/O, no
// allocation. RFC 1035, 6891.
//
//   header  id(2) QR|opcode(4)|AA|TC|RD (1) RA|Z|AD|CD|rcode(4) (1) qd(2) an(2) ns(2) ar(2)
//   name    labels: length(1, 0..63) bytes ... 0; or a pointer 11xxxxxx xxxxxxxx ends it
//   record  name type(2) class(2) ttl(4) length(2) data
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include "core/base/net_addr.h"

namespace edgemesh::discovery::dns {

inline constexpr size_t kHeaderBytes = 12;
inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxMessage = 65535;
inline constexpr size_t kPlainUdp = 512;
inline constexpr size_t kEdnsPayload = 1232;  // passes every link without fragments
inline constexpr size_t kOptBytes = 11;

enum Type : uint16_t {
  kA = 1, kNs = 2, kCname = 5, kSoa = 6, kPtr = 12, kHinfo = 13, kTxt = 16, kAaaa = 28, kSrv = 33,
  kOpt = 41, kIxfr = 251, kAxfr = 252, kAny = 255,
};
inline constexpr uint16_t kClassIn = 1;
enum Rcode : uint16_t {
  kNoError = 0, kFormErr = 1, kServFail = 2, kNxDomain = 3, kNotImp = 4, kRefused = 5, kBadVers = 16,
};
inline constexpr uint16_t kFlagQr = 0x8000, kFlagAa = 0x0400, kFlagTc = 0x0200, kFlagRd = 0x0100,
                          kFlagRa = 0x0080, kFlagAd = 0x0020, kFlagCd = 0x0010;

inline uint16_t get16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline uint32_t get32(const uint8_t* p) { return uint32_t{get16(p)} << 16 | get16(p + 2); }
inline void put16(uint8_t* p, uint16_t v) {
  p[0] = static_cast<uint8_t>(v >> 8);
  p[1] = static_cast<uint8_t>(v);
}
inline void put32(uint8_t* p, uint32_t v) {
  put16(p, static_cast<uint16_t>(v >> 16));
  put16(p + 2, static_cast<uint16_t>(v));
}

// Offset behind the name at `at` (a pointer ends it, and is not followed); nullopt: it is cut or wrong.
std::optional<size_t> skip_name(std::span<const uint8_t> message, size_t at);

// A name in wire form, without pointers, lower case, and where its labels begin.
struct Name {
  std::array<uint8_t, kMaxName> wire;
  std::array<uint8_t, 128> offsets;  // of the labels' length bytes
  uint8_t size = 0;    // with the final 0; 0: no name
  uint8_t labels = 0;  // without the root

  std::string_view label(size_t i) const {
    return {reinterpret_cast<const char*>(&wire[offsets[i]]) + 1, wire[offsets[i]]};  // NOLINT
  }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(wire.data()), size}; }  // NOLINT
  // The last labels of this name are those of `suffix`.
  bool ends_with(const Name& suffix) const;

  // "a.b.c" or "a.b.c."; nullopt: a label is empty or too long, or all is.
  static std::optional<Name> parse(std::string_view text);
  // Labels in front of a name.
  static std::optional<Name> join(std::initializer_list<std::string_view> front, const Name& tail);
};

// Reads a name with pointers, which must point backwards. Returns the offset behind it.
std::optional<size_t> expand_name(std::span<const uint8_t> message, size_t at, Name& name);

struct Query {
  uint16_t id = 0;
  uint16_t flags = 0;
  uint16_t type = 0;
  uint16_t klass = 0;
  Name name;
  std::span<const uint8_t> question;  // as it came: name, type, class
  bool edns = false;
  uint8_t edns_version = 0;
  uint16_t edns_payload = 0;
  bool dnssec_ok = false;

  bool wants_recursion() const { return (flags & kFlagRd) != 0; }
};

enum class Parsed {
  kQuery,    // everything in Query is set
  kDrop,     // no answer: too short, or itself an answer
  kFormErr,  // answer with that rcode; id and flags are set, the question is empty
  kNotImp,
};
// `query` refers to `message`.
Parsed parse_query(std::span<const uint8_t> message, Query& query);

// Writes an answer. A record is written whole or not; one that does not fit sets TC, unless it is an
// additional one.
class Writer {
 public:
  // `out` holds at least 512 bytes. `limit`: most bytes of the message.
  Writer(std::span<uint8_t> out, size_t limit, const Query& query);

  void set_rcode(uint16_t rcode) { rcode_ = rcode; }
  void set_authoritative() { flags_ |= kFlagAa; }
  uint16_t rcode() const { return rcode_; }
  bool truncated() const { return (flags_ & kFlagTc) != 0; }

  enum class Section { kAnswer, kAuthority, kAdditional };
  // Owner of a record: an offset of a name that was written before (the question is at 12).
  static constexpr uint16_t kQuestion = kHeaderBytes;

  // Each returns whether the record fitted. Sections are written in order.
  bool address(Section section, uint16_t owner, uint32_t ttl, const IpAddr& ip);
  // `target_at`: where the target was written, as an owner of further records.
  bool name_record(Section section, uint16_t owner, Type type, uint32_t ttl, const Name& target,
                   uint16_t* target_at = nullptr);
  bool srv(uint16_t owner, uint32_t ttl, uint16_t priority, uint16_t weight, uint16_t port,
           const Name& target, uint16_t* target_at);
  bool soa(Section section, const Name& zone, uint32_t ttl, uint32_t serial);
  bool text(Section section, uint16_t owner, Type type, uint32_t ttl, std::string_view data);
  // A record of another message; `data` has no compressed names.
  bool raw(Section section, const Name& owner, uint16_t type, uint32_t ttl, std::string_view data);

  uint16_t count(Section section) const { return counts_[static_cast<size_t>(section)]; }
  // The whole message; writes OPT if the query had one.
  std::span<const uint8_t> finish();

 private:
  bool begin(Section section, uint16_t owner, const Name* owner_name, uint16_t type, uint32_t ttl, size_t data_bytes);
  bool end(Section section);
  void bytes(const void* data, size_t n);
  void u16(uint16_t v);
  void u32(uint32_t v);

  std::span<uint8_t> out_;
  size_t limit_;
  size_t at_ = 0;
  bool edns_;
  bool dnssec_ok_;
  uint16_t flags_;
  uint16_t rcode_ = kNoError;
  uint16_t counts_[3] = {};
  uint16_t questions_ = 0;
};

// Most bytes of an answer by UDP to this query.
size_t udp_limit(const Query& query);

}  // namespace edgemesh::discovery::dns
