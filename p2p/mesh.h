// Mesh: byte streams to endpoints on other nodes, whatever lies between.
//
//   Dialer::open(node, target) -> stream     Acceptor::on_connect(...) at the far agent
//
// One secured connection a pair of nodes (mutual TLS, both sides verified by SPIFFE id), one CONNECT
// stream a proxied connection. The path is TCP 15008 (HTTP/2, wire-compatible with Istio's HBONE) where
// the peer can be reached, else QUIC (HTTP/3) on the pair that ICE found, relayed at first and moved to
// the direct pair without breaking a stream.
//
// Threads: Mesh belongs to the main loop; tunnels, Dialer and Acceptor to the worker loop given.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "core/base/result.h"
#include "core/io/loop.h"
#include "core/io/stream.h"
#include "core/obs/metrics.h"

namespace edgemesh::p2p {

enum class PathKind { kNone, kLocal, kDirect, kPunched, kRelayed };
std::string_view to_string(PathKind kind);

// One CONNECT of a peer, after its identity was verified. Worker loop. Dropping it unanswered rejects
// with 503.
class IncomingConnect {
 public:
  virtual ~IncomingConnect() = default;
  virtual const std::string& peer_node() const = 0;
  virtual const SockAddr& target() const = 0;
  virtual PathKind path_kind() const = 0;
  virtual std::unique_ptr<io::Stream> accept() = 0;  // answers 200
  virtual void reject(int status, std::string_view reason) = 0;
};

class Acceptor {
 public:
  virtual ~Acceptor() = default;
  virtual void on_connect(std::unique_ptr<IncomingConnect> incoming) = 0;
};

class Dialer {
 public:
  virtual ~Dialer() = default;
  // Returns at once. on_connected: the far agent answered 200. on_error before that: the message says
  // path and reason. What is written first travels with the open.
  virtual Result<std::unique_ptr<io::Stream>> open(const std::string& node, const SockAddr& target) = 0;
  virtual PathKind path_kind(const std::string& node) const = 0;
};

struct TurnConfig {
  std::string host;  // name or address
  uint16_t port = 3478;
  std::string username, password;
  int64_t expires = 0;  // Unix seconds, 0: never
};

struct PeerStatus {
  std::string node;
  PathKind path = PathKind::kNone;
  int64_t rtt_us = 0;
  uint64_t tx_bytes = 0, rx_bytes = 0;
  uint64_t streams = 0;
  std::string local, remote;  // addresses of the path in use
  std::string nat;            // guess about our own side, from the candidates
  std::string reason;         // why not direct, in words
  int64_t since_ms = 0;       // Unix time when the path was chosen
  int64_t first_path_ms = 0;  // from the first demand to the first path, 0: none yet
  int64_t direct_path_ms = 0; // from the first demand to a direct or punched path
};

struct MeshOptions {
  std::string node;
  std::string trust_domain = "edgemesh.local";
  std::string cert_pem, key_pem, ca_pem;
  SockAddr direct_listen{IpAddr(), 15008};     // port 0: any; see direct_port()
  bool direct_enable = true;
  std::vector<SockAddr> advertise;             // direct addresses to tell; empty: the node's own
  uint32_t mark = 0x4d45;
  Duration connect_timeout = std::chrono::seconds(5);
  size_t max_peers = 1024;
  size_t max_streams_per_peer = 16384;
  std::vector<std::string> ignore_interfaces{"edgemesh0"};
};

// Called on the main loop.
struct Hooks {
  std::function<void(const std::string& node, std::string json)> send_signal;
  std::function<void()> on_change;  // a peer's path changed
  // Direct addresses of a peer, to be kept on disk and given back to known_peer().
  std::function<void(const std::string& node, std::vector<SockAddr> addresses)> save_peer;
};

class Mesh {
 public:
  // Starts listening for direct peers. `acceptor` is used on the worker loop.
  static Result<std::unique_ptr<Mesh>> create(io::Loop& main, io::Loop& worker, MeshOptions options,
                                              Hooks hooks, Acceptor& acceptor, obs::Registry& registry);
  virtual ~Mesh() = default;  // after the worker's thread ended, or blocks until it let go

  virtual Dialer& dialer() = 0;
  virtual void on_signal(const std::string& from_node, std::string_view json) = 0;
  virtual void on_signal_error(const std::string& node, const std::string& reason) = 0;
  virtual void set_relay(TurnConfig relay) = 0;
  virtual Result<> set_identity(std::string cert_pem, std::string key_pem) = 0;
  virtual void known_peer(const std::string& node, std::vector<SockAddr> addresses) = 0;
  // Addresses changed, or the channel is back: look for better paths now.
  virtual void on_network_change() = 0;
  virtual std::vector<PeerStatus> peers() const = 0;
  virtual uint16_t direct_port() const = 0;
  // Opens a path to the node without a stream; `done` with its status once there is one.
  virtual void probe(const std::string& node, std::function<void(Result<PeerStatus>)> done) = 0;
};

}  // namespace edgemesh::p2p
