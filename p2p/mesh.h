// Mesh: byte streams to endpoints on other nodes, whatever lies between. A stream to a node runs
// over the best path there is at the time:
//   punched  QUIC (HTTP/3 CONNECT) on the UDP pair that ICE found; survives a change of address
//   direct   HTTP/2 CONNECT over mutual TLS on the peer's TCP port 15008 (Istio's HBONE)
//   relayed  the same QUIC packets through TURN; the relay sees ciphertext only
// All are tried at once when a node is first dialed; the first that works carries the streams that
// wait, and the QUIC connection moves to a better pair without breaking a stream.
//
// Both ends are verified against the mesh CA, and the SPIFFE id of the certificate must be that of
// the node that was dialed (or that signalled).
//
// Threads: Mesh belongs to the main loop; Dialer, Acceptor and the streams to the worker loop.
// create() and the destructor run on the main loop. The two loops may be one. Else the worker loop
// must either not have been given to its thread yet, or be known to run (a task posted to it has
// run): create() and the destructor wait for it. Destroying the mesh closes every stream: their
// handlers get on_error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/loop.h"
#include "core/io/stream.h"
#include "p2p/revocations.h"

namespace edgemesh::p2p {

enum class PathKind { kNone, kLocal, kDirect, kPunched, kRelayed };
std::string_view to_string(PathKind kind);  // "none", "local", "direct", "punched", "relayed"
// Of a stream that is connected; `expected` when it does not say.
inline PathKind path_of(const io::Stream& stream, PathKind expected) {
  const uint8_t carrier = stream.carrier();
  return carrier != 0 ? static_cast<PathKind>(carrier) : expected;
}

// One CONNECT of a peer whose identity was verified. Dropping it unanswered refuses with 503. The
// target is what the peer asked for: whether it may is the acceptor's decision.
class IncomingConnect {
 public:
  virtual ~IncomingConnect() = default;
  virtual const std::string& peer_node() const = 0;
  virtual const SockAddr& target() const = 0;
  // CONNECT-UDP (RFC 9298): the target takes datagrams, and the stream carries them in capsules, or
  // beside its bytes (io::DatagramSide), each with its context id first.
  virtual bool udp() const { return false; }
  // Answers 200. Null when the peer has gone meanwhile. Once.
  virtual std::unique_ptr<io::Stream> accept() = 0;
  virtual void reject(int status, std::string_view reason) = 0;
};

// The proxy's inbound side. Called on the worker loop.
class Acceptor {
 public:
  virtual ~Acceptor() = default;
  virtual void on_connect(std::unique_ptr<IncomingConnect> connect) = 0;
};

// On the worker loop.
class Dialer {
 public:
  virtual ~Dialer() = default;
  // Returns at once. on_connected: the far agent answered 200. on_error: the message names the path
  // and the reason ("node b, relayed: 403 not an endpoint"). What is written before is sent with
  // the open. Fails at once only when limits are reached or the node's name is our own. A stream
  // that waits for a path gives up after MeshOptions::open_timeout.
  virtual Result<std::unique_ptr<io::Stream>> open(const std::string& node,
                                                   const SockAddr& target) = 0;
  // As open(), by CONNECT-UDP: the stream carries capsules (RFC 9297), or datagrams beside its
  // bytes where the tunnel has them (io::Stream::datagrams). kUnavailable: not spoken here.
  virtual Result<std::unique_ptr<io::Stream>> open_udp(const std::string& /*node*/,
                                                       const SockAddr& /*target*/) {
    return fail(ErrorCode::kUnavailable, "datagrams are not carried");
  }
  virtual PathKind path_kind(const std::string& node) const = 0;
};

struct TurnConfig {
  std::string host;  // address or name; empty: no relay
  uint16_t port = 3478;
  std::string username;
  std::string password;
  int64_t expires = 0;  // Unix seconds, 0: never
};

struct MeshOptions {
  std::string node;
  std::string trust_domain = "edgemesh.local";
  std::string cert_pem, key_pem, ca_pem;
  std::shared_ptr<Revocations> revocations;  // null: Mesh::create makes one
  SockAddr direct_listen{IpAddr(), 15008};
  bool direct_enabled = true;  // listen and dial on TCP
  bool ice_enabled = true;
  bool loopback_candidates = false;  // tests: ICE and direct path over 127.0.0.1
  bool relay_only = false;  // ICE uses the relay and nothing else: for tests and for finding faults
  uint32_t mark = 0;        // SO_MARK of the direct path's sockets
  size_t max_peers = 1024;
  size_t max_streams_per_peer = 16384;
  size_t max_waiting_opens = 4096;  // streams that wait for a path, all peers together
  Duration open_timeout = std::chrono::seconds(10);
  Duration idle_close = std::chrono::minutes(10);  // a tunnel without streams
};

struct PeerStatus {
  std::string node;
  PathKind kind = PathKind::kNone;
  int64_t rtt_us = 0;     // 0: not measured
  uint64_t tx_bytes = 0;  // payload of streams
  uint64_t rx_bytes = 0;
  size_t streams = 0;
  std::string nat_kind;       // the peer's, by its own guess; empty: unknown
  std::string reason;         // relayed or no path: why, in words
  std::string local, remote;  // addresses of the path in use
  int64_t since = 0;          // Unix seconds of the last change of `kind`
};

struct KnownPeer {
  std::string node;
  std::vector<SockAddr> direct;  // where its TCP port was advertised
};

// All called on the main loop.
struct Hooks {
  std::function<void(const std::string& node, std::string json)> send_signal;
  std::function<void()> on_change;                            // peers() changed; may be empty
  std::function<void(std::vector<KnownPeer> peers)> persist;  // what to give to known_peers() later
};

class Mesh {
 public:
  // The error says what is wrong: certificate, key, port in use.
  static Result<std::unique_ptr<Mesh>> create(io::Loop& main, io::Loop& worker, MeshOptions options,
                                              Hooks hooks, Acceptor& acceptor);
  virtual ~Mesh() = default;

  // A signal of `from_node`, whose name the cloud took from its certificate. Bad ones are dropped.
  virtual void on_signal(const std::string& from_node, std::string_view json) = 0;
  // The cloud could not deliver our last signal to `node`.
  virtual void on_signal_error(const std::string& node, std::string_view reason) = 0;
  // Used by the next ICE agents; those that run keep theirs.
  virtual void set_relay(TurnConfig config) = 0;
  // For new connections; open ones keep theirs.
  virtual Result<> set_identity(const std::string& cert_pem, const std::string& key_pem) = 0;
  // Replaces the list. Connections of peers whose certificate is in it end, with their streams.
  virtual void set_revoked(const std::vector<RevokedNode>& nodes) = 0;
  // The machine's addresses changed. The mesh watches netlink itself; for tests and other causes.
  virtual void on_address_change() = 0;
  virtual void known_peers(std::vector<KnownPeer> peers) = 0;

  virtual Dialer& dialer() = 0;
  // At most half a second old.
  virtual std::vector<PeerStatus> peers() const = 0;
  // Our own NAT, guessed from the candidates seen so far; empty: unknown.
  virtual std::string nat_kind() const = 0;
  // The port of the direct path; 0 when it is off.
  virtual uint16_t direct_port() const = 0;
  // What to advertise for the direct path: this machine's addresses with direct_port().
  virtual std::vector<SockAddr> direct_addresses() const = 0;
};

}  // namespace edgemesh::p2p
