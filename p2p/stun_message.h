// The few STUN and TURN messages (RFC 8489, RFC 8656) that netcheck speaks: Binding and an
// unauthenticated Allocate, whose answer (401) shows that a relay is there. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/base/net_addr.h"
#include "core/base/result.h"

namespace edgemesh::p2p {

using StunId = std::array<uint8_t, 12>;

enum StunMethod : uint16_t { kStunBinding = 0x001, kStunAllocate = 0x003 };

// A request without attributes, but REQUESTED-TRANSPORT (UDP) for Allocate.
std::vector<uint8_t> stun_request(StunMethod method, const StunId& id);

struct StunAnswer {
  StunMethod method = kStunBinding;
  bool success = false;
  StunId id{};
  std::optional<SockAddr> mapped;  // XOR-MAPPED-ADDRESS
  int error = 0;                   // ERROR-CODE
};
// One whole message. Requests and indications are refused.
Result<StunAnswer> parse_stun_answer(std::span<const uint8_t> data);

}  // namespace edgemesh::p2p
