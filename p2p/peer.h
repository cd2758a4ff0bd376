// Peer: all that this node has with one other node: ICE sessions (one in use, maybe one being set up,
// some that only still receive), the QUIC connections above them, the direct TCP path, and streams that
// wait for any of these.
//
//   best path for a new stream:  punched  >  direct  >  relayed
// Punched comes before direct because its streams survive a change of address.
//
// A session is replaced, make before break: when its heartbeats stop, when an address of this machine
// changes, when the peer offers a new one. QUIC goes on over the new one. Threads: the worker loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "p2p/direct.h"
#include "p2p/peer_session.h"
#include "p2p/peer_stream.h"
#include "p2p/quic_endpoint.h"

namespace edgemesh::p2p {

class Peer;

// What the peers of a mesh share; owned by MeshWorker.
struct MeshShared {
  MeshShared(io::Loop& l, MeshOptions o) : loop(l), options(std::move(o)) {}
  io::Loop& loop;
  MeshOptions options;
  std::string instance;  // of this process, in every signal
  std::shared_ptr<const QuicIdentity> identity;
  DirectContexts contexts;
  TurnConfig turn;       // host is an address
  std::vector<IpAddr> local;
  std::vector<SockAddr> direct;  // where this node's TCP port is
  IceThread* ice = nullptr;
  size_t waiting = 0;            // streams that wait for a path, all peers
  std::string nat;

  std::function<void(const std::string& node, std::string json)> send_signal;
  std::function<void(std::unique_ptr<IncomingConnect>)> on_connect;
  std::function<void()> changed;
  std::vector<Peer*> touched;  // their status may be another than when it was last published
  std::function<void()> addresses_changed;  // of a peer: to be persisted

  // Sessions end in callbacks of their own: they are destroyed at the end of the turn, or before the
  // ice thread goes.
  void bury(std::unique_ptr<PeerSession> session) {
    buried->push_back(std::move(session));
    loop.defer([list = buried] { list->clear(); });
  }
  std::shared_ptr<std::vector<std::unique_ptr<PeerSession>>> buried =
      std::make_shared<std::vector<std::unique_ptr<PeerSession>>>();
};

class Peer final : private QuicEndpoint::Handler,
                   private PeerSession::Owner,
                   private DirectLink::Owner,
                   private WaitingList {
 public:
  Peer(MeshShared& shared, std::string node);
  ~Peer() override;

  Result<std::unique_ptr<io::Stream>> open(const SockAddr& target, bool udp = false);
  PathKind kind() const;
  PeerStatus status() const;

  void on_signal(const Signal& signal);
  void on_signal_error(const std::string& reason);
  void on_address_change();
  void set_direct(std::vector<SockAddr> addresses);
  const std::vector<SockAddr>& direct_addresses() const { return direct_addresses_; }
  void set_identity();
  void close_revoked();
  // Has the status published anew; cheap, called whenever anything happened.
  void touch();
  // False: it changes with no event that we see, and must be looked at again.
  bool untouch();
  bool idle() const;  // may be forgotten
  void say_bye();

 private:
  // QuicEndpoint::Handler
  void on_tunnel_ready() override { bind_waiting(); }
  void on_tunnel_connect(std::unique_ptr<IncomingConnect> connect) override;
  void on_tunnel_closed(const Error& error) override;
  void on_other(DatagramPath& path, std::span<const uint8_t> datagram) override;
  void on_path_data(DatagramPath& path, size_t bytes) override;
  // PeerSession::Owner
  void session_signal(Signal signal) override;
  void session_path(PeerSession& session) override;
  void session_failed(PeerSession& session, const std::string& reason) override;
  // DirectLink::Owner
  void direct_ready() override;
  void direct_closed(const Error& error) override;
  // WaitingList
  void remove(PeerStream* stream) override;

  // peer_signal.cc
  void on_offer(const Signal& offer);
  void on_answer(const Signal& answer);
  void on_bye(const Signal& bye);
  void check_instance(const Signal& signal);

  PeerSession* session_of(const DatagramPath& path);
  IceOptions ice_options() const;
  bool punched() const { return live() && current_->path().kind() == PathKind::kPunched; }
  bool live() const { return current_ != nullptr && current_->connected() && !current_->suspect(); }
  bool needed() const;  // streams are there, wait, or were until lately
  Result<std::unique_ptr<io::Stream>> open_best(const SockAddr& target, bool udp);
  void bind_waiting();
  void fail_waiting(const Error& error);
  void ensure_connecting();
  void start_session();
  void promote();
  void retire(std::unique_ptr<PeerSession> session);
  void destroy(std::unique_ptr<PeerSession> session);
  void wake(Duration active_for);
  void tick();
  void tick_sessions(bool active);
  void note_kind();
  std::string reason_text() const;

  MeshShared& shared_;
  io::Loop& loop_;
  const std::string node_;
  const bool controlling_;
  QuicEndpoint endpoint_;
  DirectLink direct_;
  std::unique_ptr<PeerSession> current_;
  std::unique_ptr<PeerSession> pending_;
  std::vector<std::pair<TimePoint, std::unique_ptr<PeerSession>>> retired_;  // with its end
  std::vector<PeerStream*> waiting_;
  std::vector<SockAddr> direct_addresses_;
  std::string instance_;  // of the peer's process
  std::string nat_;
  std::string last_reason_;
  io::Timer timer_;
  TimePoint last_used_{};
  TimePoint active_until_{};
  TimePoint next_attempt_{};
  TimePoint next_direct_{};
  Duration direct_backoff_ = std::chrono::milliseconds(500);
  Duration backoff_;
  uint64_t last_bytes_ = 0;
  unsigned ticks_ = 0;
  bool touched_ = false;
  PathKind told_kind_ = PathKind::kNone;
  int64_t since_ = 0;
};

}  // namespace edgemesh::p2p
