// The hub's counters. Used by Hub only.
#pragma once

#include "cloud/hub.h"

namespace edgemesh::cloud {

struct Hub::Metrics {
  explicit Metrics(obs::Registry& r)
      : sessions(r.gauge("edgemesh_hub_sessions", "Nodes connected.")),
        accepted(r.counter("edgemesh_hub_accepted_total", "Sessions begun.")),
        refused(r.counter("edgemesh_hub_refused_total", "Connections refused.")),
        replaced(ended(r, "replaced")),
        dead(ended(r, "dead")),
        slow(ended(r, "slow")),
        protocol(ended(r, "protocol")),
        messages_in(messages(r, "in")),
        messages_out(messages(r, "out")),
        bytes_in(bytes(r, "in")),
        bytes_out(bytes(r, "out")) {}

  static obs::Counter& ended(obs::Registry& r, const char* reason) {
    return r.counter("edgemesh_hub_cut_total", "Sessions ended by the cloud.",
                     {{"reason", reason}});
  }
  static obs::Counter& messages(obs::Registry& r, const char* direction) {
    return r.counter("edgemesh_hub_messages_total", "Channel messages.",
                     {{"direction", direction}});
  }
  static obs::Counter& bytes(obs::Registry& r, const char* direction) {
    return r.counter("edgemesh_hub_bytes_total", "Bytes of channel messages.",
                     {{"direction", direction}});
  }

  obs::Gauge& sessions;
  obs::Counter& accepted;
  obs::Counter& refused;
  obs::Counter& replaced;
  obs::Counter& dead;
  obs::Counter& slow;
  obs::Counter& protocol;
  obs::Counter& messages_in;
  obs::Counter& messages_out;
  obs::Counter& bytes_in;
  obs::Counter& bytes_out;
};

}  // namespace edgemesh::cloud
