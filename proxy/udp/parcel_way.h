// The way of datagrams to the worker that owns the tunnels, for UdpContext::hand_over. What is on
// its way is bounded: the other worker may be slower. Threads: called on the loop of the worker
// that gives; `deliver` runs on `to`, which outlives the way.
#pragma once

#include <functional>

#include "core/io/loop.h"
#include "proxy/udp/udp_context.h"

namespace edgemesh::proxy {

std::function<bool(UdpParcel)> parcel_way(io::Loop& to, std::function<void(UdpParcel)> deliver);

}  // namespace edgemesh::proxy
