// TcpTally: what a connection of bytes tells the metrics: that it opened, what was moved since the
// last time, that it closed. Threads: the worker's loop.
#pragma once

#include <initializer_list>

#include "proxy/telemetry/telemetry.h"

namespace edgemesh::proxy {

struct TcpTally {
  using Scopes = std::initializer_list<TrafficScope*>;  // null ones are passed over

  LabelSetId source = kUnknownPeer, destination = kUnknownPeer;
  StatsReporter reporter = StatsReporter::kSource;
  StatsSecurity security = StatsSecurity::kUnknown;

  // `received`, `sent`: from and to the client, since it opened. Metrics must be on.
  void progress(WorkerTelemetry& telemetry, uint64_t received, uint64_t sent, Scopes scopes);
  // After the last progress().
  void end(WorkerTelemetry& telemetry, uint32_t flags, Scopes scopes) const;

 private:
  TcpRecord record() const;

  bool told_open_ = false;
  uint64_t told_received_ = 0, told_sent_ = 0;
};

}  // namespace edgemesh::proxy
