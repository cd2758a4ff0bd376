// MeshWorker: the mesh's half on the worker loop: peers, the direct listener, the ice thread. Private to
// p2p. Threads: the worker loop, except snapshot().
#pragma once

#include <map>
#include <mutex>

#include "p2p/peer.h"

namespace edgemesh::p2p {

class MeshWorker final : public Dialer {
 public:
  // To the main loop; each posts.
  struct Out {
    std::function<void(std::string node, std::string json)> send_signal;
    std::function<void()> changed;
    std::function<void(std::vector<KnownPeer>)> persist;
  };
  static Result<std::unique_ptr<MeshWorker>> create(io::Loop& loop, MeshOptions options, Out out,
                                                    Acceptor& acceptor);
  ~MeshWorker() override;

  Result<std::unique_ptr<io::Stream>> open(const std::string& node, const SockAddr& target) override {
    return open(node, target, false);
  }
  Result<std::unique_ptr<io::Stream>> open_udp(const std::string& node,
                                               const SockAddr& target) override {
    return open(node, target, true);
  }
  PathKind path_kind(const std::string& node) const override;

  void on_signal(const std::string& from, const Signal& signal);
  void on_signal_error(const std::string& node, const std::string& reason);
  void set_relay(TurnConfig config) { shared_.turn = std::move(config); }
  void set_identity(std::shared_ptr<const QuicIdentity> identity, DirectContexts contexts);
  // What the options' list holds has changed.
  void close_revoked();
  void on_address_change();
  void known_peers(const std::vector<KnownPeer>& peers);
  uint16_t direct_port() const { return listener_ == nullptr ? 0 : listener_->port(); }

  struct Snapshot {
    std::vector<PeerStatus> peers;
    std::string nat;
    std::vector<SockAddr> direct;
  };
  Snapshot snapshot() const;  // any thread
  uint64_t statuses_made() const { return statuses_made_; }  // what publishing has cost so far

 private:
  Result<std::unique_ptr<io::Stream>> open(const std::string& node, const SockAddr& target, bool udp);
  MeshWorker(io::Loop& loop, MeshOptions options, Out out, Acceptor& acceptor);
  Peer* peer(const std::string& node, bool make);
  void find_addresses();
  void publish();
  void persist();

  MeshShared shared_;
  Out out_;
  Acceptor& acceptor_;
  std::unique_ptr<IceThread> ice_;
  std::unique_ptr<DirectListener> listener_;
  std::map<std::string, std::unique_ptr<Peer>> peers_;
  io::Timer publish_timer_;
  io::Timer persist_timer_;
  bool publish_queued_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  uint64_t statuses_made_ = 0;
  mutable std::mutex mutex_;  // guards the rest
  std::map<std::string, PeerStatus> published_;
  std::string published_nat_;
  std::vector<SockAddr> published_direct_;
};

}  // namespace edgemesh::p2p
