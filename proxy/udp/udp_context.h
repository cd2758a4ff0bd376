// UdpContext: what the datagram side of one worker shares. Threads: the worker's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/io/loop.h"
#include "discovery/snapshot.h"
#include "p2p/mesh.h"
#include "proxy/udp/datagram_batch.h"
#include "proxy/udp/endpoint_socket.h"
#include "proxy/udp/flow_table.h"
#include "proxy/udp/icmp_replies.h"
#include "proxy/udp/raw_replies.h"
#include "proxy/udp/tunnel.h"
#include "proxy/udp/udp_metrics.h"

namespace edgemesh::proxy {

// Datagrams of a flow on their way to the worker that owns the tunnels.
struct UdpParcel {
  size_t listener = 0;  // which of the worker's
  FlowKey key;
  std::vector<uint8_t> bytes;
  std::vector<std::pair<uint32_t, uint16_t>> items;  // size and segment of each
};

struct UdpOptions {
  std::string node;   // of this agent
  uint32_t mark = 0;  // SO_MARK of sockets to endpoints inside capture_cidrs
  std::vector<Cidr> capture_cidrs;
  bool access_log = true;
  // Of flows that come from other nodes. Theirs is shorter, so that they end first.
  Duration inbound_idle_timeout = std::chrono::minutes(2);
  size_t max_inbound_flows = 10'000;
};

struct UdpContext {
  UdpContext(io::Loop& l, UdpOptions o, obs::Registry& registry, int index)
      : loop(l), options(std::move(o)), metrics(registry, index), ready(l), closing(l) {}

  io::Loop& loop;
  UdpOptions options;
  UdpMetrics metrics;
  DatagramBatch batch;
  RawReplies replies;
  IcmpReplies icmp;
  ReadyQueue ready;
  ClosingTunnels closing;
  // The way to other nodes: a dialer on this loop, or another worker that has one, or neither.
  p2p::Dialer* dialer = nullptr;
  // False: too much is on its way already.
  std::function<bool(UdpParcel)> hand_over;
};

}  // namespace edgemesh::proxy
