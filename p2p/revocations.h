// Revocations: certificates that have not run out and yet count no more, because the cloud says that their
// node was deleted, or that another machine took its name. A node's certificates are revoked by age: all
// whose notBefore lies before a moment. Threads: any.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::p2p {

struct RevokedNode {
  std::string node;
  int64_t before = 0;  // Unix seconds: certificates with an earlier notBefore
};

class Revocations {
 public:
  // Replaces what was there.
  void set(const std::vector<RevokedNode>& nodes);
  bool revoked(const std::string& node, int64_t not_before) const;
  // The same as an error in words (kUnauthenticated).
  Result<> check(const std::string& node, int64_t not_before) const;

 private:
  mutable std::mutex mutex_;  // taken once a handshake
  std::unordered_map<std::string, int64_t> before_;
};

}  // namespace edgemesh::p2p
