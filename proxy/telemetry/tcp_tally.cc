#include "proxy/telemetry/tcp_tally.h"

namespace edgemesh::proxy {
namespace {

void put(WorkerTelemetry& telemetry, const TrafficScope::Bytes& bytes, TcpTally::Scopes scopes) {
  for (TrafficScope* scope : scopes)
    if (scope != nullptr) scope->record(telemetry.index(), bytes);
}

}  // namespace

TcpRecord TcpTally::record() const {
  TcpRecord out;
  out.source = source;
  out.destination = destination;
  out.reporter = reporter;
  out.security = security;
  return out;
}

void TcpTally::progress(WorkerTelemetry& telemetry, uint64_t received, uint64_t sent,
                        Scopes scopes) {
  TrafficScope::Bytes bytes;
  bytes.received = received - told_received_;
  bytes.sent = sent - told_sent_;
  bytes.opened = told_open_ ? 0 : 1;
  if (told_open_ && bytes.received == 0 && bytes.sent == 0) return;
  told_open_ = true;
  told_received_ = received;
  told_sent_ = sent;
  TcpRecord one = record();
  one.opened = bytes.opened;
  one.sent = bytes.sent;
  one.received = bytes.received;
  telemetry.requests()->record(one);
  put(telemetry, bytes, scopes);
}

void TcpTally::end(WorkerTelemetry& telemetry, uint32_t flags, Scopes scopes) const {
  TcpRecord one = record();
  one.flags = flags;
  one.closed = 1;
  telemetry.requests()->record(one);
  put(telemetry, TrafficScope::Bytes{.closed = 1}, scopes);
}

}  // namespace edgemesh::proxy
