// The direct path: HTTP/2 CONNECT over mutual TLS on TCP (Istio's HBONE). DirectLink dials a peer's
// addresses one shortly after the other, each as soon as one before it failed, and keeps the first that
// proves to be the peer; DirectListener takes those of peers. Threads: the worker loop.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/http/h2.h"
#include "core/io/tcp.h"
#include "core/tls/tls_stream.h"
#include "p2p/mesh.h"
#include "p2p/revocations.h"

namespace edgemesh::p2p {

struct DirectContexts {
  std::shared_ptr<tls::Context> client, server;
  static Result<DirectContexts> create(const std::string& cert_pem, const std::string& key_pem,
                                       const std::string& ca_pem);
};

// The node that a verified certificate names; empty: none of this trust domain.
std::string node_of(const tls::PeerIdentity* peer, const std::string& trust_domain);

// Who may be at the other end. Shared by the direct path's ends.
struct DirectTrust {
  std::string domain;
  std::shared_ptr<const Revocations> revocations;  // null: none
  Result<> check(const std::string& node, int64_t not_before) const {
    return revocations == nullptr ? Result<>() : revocations->check(node, not_before);
  }
};

class DirectLink final : private http::H2Session::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void direct_ready() = 0;
    virtual void direct_closed(const Error& error) = 0;  // also: no address worked
  };
  DirectLink(io::Loop& loop, Owner& owner, std::string peer, DirectTrust trust, uint32_t mark);
  ~DirectLink() override;

  // In the order given; see dial_order().
  void dial(std::vector<SockAddr> addresses, std::shared_ptr<tls::Context> context);
  bool dialing() const { return !attempts_.empty() || !untried_.empty(); }
  bool ready() const { return session_ != nullptr && session_->accepts_streams(); }
  Result<std::unique_ptr<io::Stream>> open(const SockAddr& target, bool udp = false);
  void close();
  // Ends the connection, with its streams, when the peer's certificate was revoked.
  void close_revoked();
  size_t streams() const { return session_ == nullptr ? 0 : session_->active_streams(); }
  uint64_t tx_bytes() const { return past_tx_ + (session_ ? session_->bytes_out() : 0); }
  uint64_t rx_bytes() const { return past_rx_ + (session_ ? session_->bytes_in() : 0); }
  Duration rtt() const { return rtt_; }
  void measure();  // a PING
  const SockAddr& remote() const { return remote_; }

  static constexpr Duration kStagger = std::chrono::milliseconds(100);

 private:
  struct Attempt;
  void on_connect(std::unique_ptr<http::H2Connect>) override {}  // servers open no streams
  void on_goaway() override {}
  void on_close(const Error& error) override;
  void dial_next();
  void attempt_done(Attempt* attempt, Result<> result);
  void note_failure(const Error& error);
  void drop(Attempt* attempt);

  io::Loop& loop_;
  Owner& owner_;
  const std::string peer_;
  const DirectTrust trust_;
  const uint32_t mark_;
  std::vector<std::unique_ptr<Attempt>> attempts_;
  std::deque<SockAddr> untried_;
  std::shared_ptr<tls::Context> context_;
  io::Timer stagger_;
  std::optional<Error> failure_;  // of this round: what tells most
  std::unique_ptr<http::H2Session> session_;
  int64_t peer_not_before_ = 0;  // of the session's peer's certificate
  SockAddr remote_;
  Duration rtt_{};
  uint64_t past_tx_ = 0, past_rx_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class DirectListener final {
 public:
  struct Callbacks {
    std::function<void(std::unique_ptr<IncomingConnect>)> on_connect;
    std::function<void(const std::string& node)> on_connections;  // their number changed; may be empty
  };
  static Result<std::unique_ptr<DirectListener>> listen(io::Loop& loop, const SockAddr& addr,
                                                        DirectTrust trust,
                                                        std::shared_ptr<tls::Context> context,
                                                        size_t max_connections, Callbacks callbacks);
  ~DirectListener();
  uint16_t port() const;
  void set_context(std::shared_ptr<tls::Context> context);
  // Ends the connections of peers whose certificate was revoked.
  void close_revoked();
  size_t connections_of(const std::string& node) const;

 private:
  struct Impl;
  struct Connection;
  explicit DirectListener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::p2p
