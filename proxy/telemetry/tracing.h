// Trace context in request heads: W3C Trace Context (traceparent, tracestate; version 00 and what its
// section 3.2 says of later ones) and B3 (one field "b3", or x-b3-traceid, -spanid, -sampled, -flags).
//
// extract() is strict: what does not follow the grammar counts as not there, and a new trace begins.
// Of several forms traceparent is believed first, then b3, then x-b3-*.
// Allocates nothing, but for room in the head's arena. Threads: plain functions of their arguments.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "proxy/http/head.h"
#include "proxy/model/match.h"

namespace edgemesh::proxy {

inline constexpr size_t kMaxTraceState = 512;  // bytes; longer ones are dropped (section 3.3.1.1)

struct TraceContext {
  enum Form : uint8_t { kW3c = 1, kB3Single = 2, kB3Multi = 4 };
  enum class Sampling : uint8_t { kUndecided, kNo, kYes };
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> span_id{};    // extract(): the sender's; begin_span(): ours
  std::array<uint8_t, 8> parent_id{};  // begin_span(): the sender's; zero: none
  Sampling sampling = Sampling::kUndecided;
  uint8_t forms = 0;      // in which the head has it
  bool has_ids = false;   // B3 may bring a decision without a trace
  bool debug = false;     // B3's; counts as sampled
  bool drop_state = false;   // the head's tracestate does not belong to this trace, or is not valid

  bool sampled() const { return sampling == Sampling::kYes; }
};

TraceContext extract(const Head& head);
// Writes `context` in the forms it came in, and as traceparent always. What the head has of other
// forms is removed. tracestate is left as it is, or removed (drop_state).
void inject(const TraceContext& context, Head* head);

struct TraceRandom {
  uint64_t trace_high = 0, trace_low = 0, span = 0;
};
// What becomes of a request: the sender's trace goes on with a span of ours, or one begins. The
// sender's decision to sample holds; without one, `share` of all requests are sampled. False: there
// is no trace, the head is left alone (share 0 and nothing came).
bool begin_span(const Head& head, model::PerMillion share, const TraceRandom& random,
                TraceContext* context);

// Lower-case hexadecimal, two characters a byte.
void put_hex(const uint8_t* bytes, size_t count, char* out);

}  // namespace edgemesh::proxy
