// Signals: what two nodes tell each other through the cloud to set up a tunnel. JSON, one object:
//   {"v":1, "kind":"offer|answer|candidate|bye", "instance":"<hex, one a process>",
//    "session":"<hex, one an ICE agent pair>", "ufrag":"..","pwd":"..",
//    "candidates":["candidate:.."], "done":true, "direct":["10.0.0.1:15008"], "nat":"cone"}
// The sender's name is not in it: the cloud adds it from the sender's certificate.
//
// An offer names a new session; the answer repeats it. Candidates trickle in either direction. When
// both offer at once, the session of the lexicographically smaller node stands; that node also has
// ICE's controlling role. `parse_signal` is strict: what is too long, too many or of a wrong form is
// refused as a whole. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"
#include "core/base/result.h"

namespace edgemesh::p2p {

struct Signal {
  enum class Kind : uint8_t { kOffer, kAnswer, kCandidate, kBye };
  Kind kind = Kind::kOffer;
  std::string instance;  // 1 to 64 hex digits
  std::string session;   // the same; may be empty in a bye: all sessions
  std::string ufrag, pwd;
  std::vector<std::string> candidates;  // SDP candidate attributes
  bool done = false;                    // no more candidates will come
  std::vector<SockAddr> direct;
  std::string nat;                      // the sender's NAT by its own guess
};

inline constexpr size_t kMaxSignalBytes = 16 * 1024;
inline constexpr size_t kMaxSignalCandidates = 64;
inline constexpr size_t kMaxSignalAddresses = 16;

Result<Signal> parse_signal(std::string_view json);
std::string encode_signal(const Signal& signal);

}  // namespace edgemesh::p2p
