// Response flags: why an answer is not simply the endpoint's, as Envoy names them in its access log
// (%RESPONSE_FLAGS%). Several can hold for one request.
#pragma once

#include <cstdint>
#include <string_view>

namespace edgemesh::proxy {

namespace flag {
inline constexpr uint32_t kNoHealthyUpstream = 1 << 0;     // UH
inline constexpr uint32_t kUpstreamConnect = 1 << 1;       // UF: no connection to the endpoint
inline constexpr uint32_t kUpstreamOverflow = 1 << 2;      // UO: circuit breaker
inline constexpr uint32_t kNoRoute = 1 << 3;               // NR
inline constexpr uint32_t kRetryExhausted = 1 << 4;        // URX
inline constexpr uint32_t kNoCluster = 1 << 5;             // NC
inline constexpr uint32_t kUpstreamTimeout = 1 << 6;       // UT
inline constexpr uint32_t kUpstreamTermination = 1 << 7;   // UC: the connection was lost
inline constexpr uint32_t kUpstreamReset = 1 << 8;         // UR: the stream was reset
inline constexpr uint32_t kUpstreamProtocol = 1 << 9;      // UPE
inline constexpr uint32_t kDownstreamTermination = 1 << 10;  // DC: the client went away
inline constexpr uint32_t kDownstreamProtocol = 1 << 11;   // DPE
inline constexpr uint32_t kDelayInjected = 1 << 12;        // DI
inline constexpr uint32_t kFaultInjected = 1 << 13;        // FI
inline constexpr uint32_t kRateLimited = 1 << 14;          // RL
inline constexpr uint32_t kUnauthorized = 1 << 15;         // UAEX: external authorization
inline constexpr uint32_t kStreamIdle = 1 << 16;           // SI
inline constexpr uint32_t kMaxDuration = 1 << 17;          // UMSDR
inline constexpr uint32_t kOverload = 1 << 18;             // OM
inline constexpr uint32_t kLocalReset = 1 << 19;           // LR
inline constexpr int kCount = 20;
}  // namespace flag

// "UF,URX"; "-" for none. Into a buffer of this thread, valid until the next call.
std::string_view flags_text(uint32_t flags);

}  // namespace edgemesh::proxy
