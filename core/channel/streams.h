// What cloud and node agree on for kubectl's streams (logs, exec, attach, port-forward, top):
//
//   cloud > node  group edgestream, operation open, resource node/streams, over the channel
//   node > cloud  a connection to the hub's port with the node's certificate:
//                 GET /v1/streams, Connection: Upgrade, Upgrade: edgemesh-streams
//   cloud         101; from here on HTTP/2, with the cloud as its client: the node needs no open
//                 port. Each stream is a CONNECT to the authority "kubelet", and carries one
//                 HTTP/1.1 request of kubelet's API (/containerLogs, /exec, /attach, /portForward,
//                 /stats/summary), upgrades included.
//
// The connection is opened when the first stream is wanted, and ends after some minutes without any.
#pragma once

namespace edgemesh::channel {

inline constexpr const char* kStreamsGroup = "edgestream";
inline constexpr const char* kStreamsOpen = "open";
inline constexpr const char* kStreamsResource = "node/streams";
inline constexpr const char* kStreamsProtocol = "edgemesh-streams";
inline constexpr const char* kStreamsPath = "/v1/streams";
inline constexpr const char* kStreamsAuthority = "kubelet";

}  // namespace edgemesh::channel
