#include "p2p/revocations.h"

#include <algorithm>

namespace edgemesh::p2p {

void Revocations::set(const std::vector<RevokedNode>& nodes) {
  std::unordered_map<std::string, int64_t> before;
  for (const RevokedNode& entry : nodes) {
    int64_t& limit = before[entry.node];
    limit = std::max(limit, entry.before);
  }
  std::lock_guard lock(mutex_);
  before_.swap(before);
}

bool Revocations::revoked(const std::string& node, int64_t not_before) const {
  std::lock_guard lock(mutex_);
  const auto it = before_.find(node);
  return it != before_.end() && not_before < it->second;
}

Result<> Revocations::check(const std::string& node, int64_t not_before) const {
  if (!revoked(node, not_before)) return {};
  return fail(ErrorCode::kUnauthenticated, "the certificate of node {} was revoked", node);
}

}  // namespace edgemesh::p2p
