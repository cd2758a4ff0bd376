// Format strings: "%PROTOCOL% from %DOWNSTREAM_REMOTE_ADDRESS%", with the operators that Envoy
// documents for header values and access logs. Compiled once; writing allocates nothing when the
// string has room. Immutable and thread-safe.
//
// %% is a percent sign. An operator takes an argument in brackets and a length:
// %REQ(user-agent):40%, %REQ(x-a?x-b)% is x-b when there is no x-a. A value that is not known is
// "-".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/route/facts.h"

namespace edgemesh::proxy {

class Format {
 public:
  // The error names the operator that is not known.
  static Result<Format> make(std::string_view text);
  Format() = default;
  // `absent` stands for values that are not known.
  void write(const LogFacts& facts, std::string* out, std::string_view absent = "-") const;
  bool plain() const {
    return pieces_.empty() || (pieces_.size() == 1 && pieces_[0].op == kLiteral);
  }
  // One operator and no text around it; and one whose values are numbers.
  bool single_operator() const { return pieces_.size() == 1 && pieces_[0].op != kLiteral; }
  bool number() const;
  // The text of a plain() format.
  std::string_view literal() const {
    return pieces_.empty() ? std::string_view() : std::string_view(pieces_[0].text);
  }

 private:
  enum Op : uint8_t {
    kLiteral,
    kRequestField,
    kResponseField,
    kStartTime,
    kProtocol,
    kRemoteAddress,
    kRemoteIp,
    kRemotePort,
    kDirectAddress,
    kDirectIp,
    kDirectPort,
    kLocalAddress,
    kLocalIp,
    kLocalPort,
    kStatus,
    kDetails,
    kFlags,
    kFailure,
    kReceived,
    kSent,
    kDuration,
    kAttempts,
    kUpstreamAddress,
    kUpstreamIp,
    kUpstreamLocal,
    kUpstreamPath,
    kUpstreamCluster,
    kRouteName,
    kServerName,
    kPeerUri,
    kPeerDns,
    kPeerSubject,
    kPeerSha256,
    kHostname,
    kScheme,
    kTrailer,
    kGrpcStatus,
    kGrpcNumber,
    kConnectionDetails,
    kTraceId,
    kUpstreamPort,
    kAnswerTime,
  };
  struct Piece {
    Op op = kLiteral;
    uint32_t max = 0;         // bytes; 0: all
    std::string text, other;  // a literal, or the argument
  };
  struct Name {
    std::string_view name;
    Op op;
  };
  static const Name kNames[];
  static Result<Piece> parse_operator(std::string_view text);
  static bool write_piece(const Piece& piece, const LogFacts& facts, std::string* out);
  static bool write_connection(const Piece& piece, const Facts& facts, std::string* out);
  static bool write_upstream(const Piece& piece, const LogFacts& facts, std::string* out);
  std::vector<Piece> pieces_;
};

// Without allocation, when `out` has room.
void append_ip(const IpAddr& ip, std::string* out);
void append_address(const SockAddr& addr, std::string* out);
void append_number(uint64_t value, std::string* out);

}  // namespace edgemesh::proxy
