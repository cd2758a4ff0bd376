#include "p2p/direct.h"

#include <algorithm>
#include <unordered_map>

#include "core/base/log.h"
#include "core/tls/x509.h"
#include "p2p/connect_udp.h"

namespace edgemesh::p2p {

namespace {
constexpr Duration kConnectTimeout = std::chrono::seconds(3);
// The peer is gone, or one of us has another address: TCP itself would try for a quarter of an hour.
constexpr Duration kMaxSilence = std::chrono::seconds(6);
constexpr Duration kHandshakeTimeout = std::chrono::seconds(5);
// How long a peer whose certificate was revoked is told so, for each stream that it opens.
constexpr Duration kTellRefused = std::chrono::seconds(1);
}  // namespace

Result<DirectContexts> DirectContexts::create(const std::string& cert_pem, const std::string& key_pem,
                                              const std::string& ca_pem) {
  tls::ContextOptions options;
  options.cert_pem = cert_pem;
  options.key_pem = key_pem;
  options.ca_pem = ca_pem;
  options.verify = tls::ContextOptions::kRequired;
  options.alpn = {"h2"};
  options.min_version = tls::kTls13;
  options.handshake_timeout = kHandshakeTimeout;
  DirectContexts contexts;
  EM_TRY(contexts.client, tls::Context::client(options));
  EM_TRY(contexts.server, tls::Context::server(options));
  return contexts;
}

std::string node_of(const tls::PeerIdentity* peer, const std::string& trust_domain) {
  if (peer == nullptr) return {};
  for (const auto& uri : peer->uri_sans)
    if (std::string node = tls::node_from_spiffe_id(uri, trust_domain); !node.empty()) return node;
  return {};
}

// One address being tried: TCP, TLS, the name.
struct DirectLink::Attempt final : io::Stream::Handler {
  Attempt(DirectLink& l, const SockAddr& a) : link(l), addr(a) {}

  Result<> start(const std::shared_ptr<tls::Context>& context) {
    io::ConnectOptions options;
    options.mark = link.mark_;
    options.timeout = kConnectTimeout;
    options.congestion = "bbr";
    options.silence_limit = kMaxSilence;
    EM_TRY(auto tcp, io::TcpStream::connect(link.loop_, addr, options));
    EM_TRY(stream, tls::TlsStream::client(link.loop_, std::move(tcp), context, ""));
    stream->set_handler(this);
    return {};
  }
  void on_connected() override {
    std::string node = node_of(stream->peer(), link.trust_.domain);
    if (node != link.peer_)
      return link.attempt_done(this, fail(ErrorCode::kUnauthenticated, "{} is node '{}', not {}",
                                          addr.to_string(), node, link.peer_));
    if (auto ok = link.trust_.check(node, stream->peer()->not_before); !ok)
      return link.attempt_done(this, std::move(ok));
    if (stream->alpn() != "h2")
      return link.attempt_done(this, fail(ErrorCode::kProtocol, "{} does not speak HTTP/2",
                                          addr.to_string()));
    link.attempt_done(this, {});
  }
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error& error) override { link.attempt_done(this, fail(error)); }

  DirectLink& link;
  SockAddr addr;
  std::unique_ptr<tls::TlsStream> stream;
};

DirectLink::DirectLink(io::Loop& loop, Owner& owner, std::string peer, DirectTrust trust, uint32_t mark)
    : loop_(loop),
      owner_(owner),
      peer_(std::move(peer)),
      trust_(std::move(trust)),
      mark_(mark),
      stagger_(loop, [this] { dial_next(); }) {}

DirectLink::~DirectLink() { *alive_ = false; }

void DirectLink::dial(std::vector<SockAddr> addresses, std::shared_ptr<tls::Context> context) {
  if (session_ != nullptr || dialing() || addresses.empty()) return;
  untried_.assign(addresses.begin(), addresses.end());
  context_ = std::move(context);
  failure_.reset();
  dial_next();
  // The second, of the other family if there is one, costs little and is the likeliest to be needed.
  if (!untried_.empty()) dial_next();
}

// Begins the next attempt that can be begun.
void DirectLink::dial_next() {
  while (!untried_.empty()) {
    auto attempt = std::make_unique<Attempt>(*this, untried_.front());
    untried_.pop_front();
    auto begun = attempt->start(context_);
    if (begun) {
      attempts_.push_back(std::move(attempt));
      if (!untried_.empty()) stagger_.start(kStagger);
      return;
    }
    note_failure(begun.error());  // no route, mostly
  }
  if (attempts_.empty() && session_ == nullptr && failure_) owner_.direct_closed(*failure_);
}

// Someone else who answers tells more than a silent address.
void DirectLink::note_failure(const Error& error) {
  if (!failure_ || failure_->code != ErrorCode::kUnauthenticated) failure_ = error;
}

void DirectLink::drop(Attempt* attempt) {
  auto it = std::find_if(attempts_.begin(), attempts_.end(),
                         [&](const auto& a) { return a.get() == attempt; });
  if (it == attempts_.end()) return;
  loop_.defer([gone = std::shared_ptr<Attempt>(std::move(*it))] {});
  attempts_.erase(it);
}

void DirectLink::attempt_done(Attempt* attempt, Result<> result) {
  if (!result) {
    EM_LOG(kDebug, "p2p", "direct path to {} by {}: {}", peer_, attempt->addr.to_string(),
           result.error().message);
    drop(attempt);
    note_failure(result.error());
    return dial_next();
  }
  remote_ = attempt->addr;
  peer_not_before_ = attempt->stream->peer()->not_before;
  std::unique_ptr<io::Stream> stream = std::move(attempt->stream);
  for (auto& other : attempts_) loop_.defer([gone = std::shared_ptr<Attempt>(std::move(other))] {});
  attempts_.clear();
  untried_.clear();
  stagger_.stop();
  http::H2Options options;
  auto session = http::H2Session::client(loop_, std::move(stream), this, options);
  if (!session) return owner_.direct_closed(session.error());
  session_ = std::move(*session);
  measure();
  owner_.direct_ready();
}

Result<std::unique_ptr<io::Stream>> DirectLink::open(const SockAddr& target, bool udp) {
  if (!ready()) return fail(ErrorCode::kUnavailable, "the direct path is closed");
  if (!udp) return session_->open_connect(target.to_string());
  http::ExtendedConnect extended{std::string(kConnectUdp), "https", connect_udp_path(target)};
  return session_->open_connect(peer_, {{"capsule-protocol", "?1"}}, &extended);
}

void DirectLink::measure() {
  if (session_ == nullptr) return;
  session_->ping([this, alive = alive_](Result<Duration> rtt) {
    if (*alive && rtt) rtt_ = *rtt;
  });
}

void DirectLink::close() {
  if (session_ != nullptr) session_->goaway();
}

void DirectLink::close_revoked() {
  if (session_ == nullptr) return;
  if (auto ok = trust_.check(peer_, peer_not_before_); !ok) on_close(ok.error());
}

void DirectLink::on_close(const Error& error) {
  past_tx_ += session_->bytes_out();
  past_rx_ += session_->bytes_in();
  loop_.defer([gone = std::shared_ptr<http::H2Session>(std::move(session_))] {});
  owner_.direct_closed(error);
}

// ---- the listener ----

namespace {

class DirectIncoming final : public IncomingConnect {
 public:
  DirectIncoming(std::unique_ptr<http::H2Connect> connect, std::string peer, const SockAddr& target,
                 bool udp)
      : connect_(std::move(connect)), peer_(std::move(peer)), target_(target), udp_(udp) {}
  const std::string& peer_node() const override { return peer_; }
  const SockAddr& target() const override { return target_; }
  bool udp() const override { return udp_; }
  std::unique_ptr<io::Stream> accept() override {
    return udp_ ? connect_->accept({{"capsule-protocol", "?1"}}) : connect_->accept();
  }
  void reject(int status, std::string_view reason) override { connect_->reject(status, reason); }

 private:
  std::unique_ptr<http::H2Connect> connect_;
  std::string peer_;
  SockAddr target_;
  bool udp_;
};

}  // namespace

struct DirectListener::Impl {
  explicit Impl(io::Loop& l) : loop(l) {}
  io::Loop& loop;
  DirectTrust trust;
  std::shared_ptr<tls::Context> context;
  size_t max_connections = 0;
  Callbacks callbacks;
  std::unique_ptr<io::TcpListener> listener;
  std::vector<std::unique_ptr<Connection>> connections;
  std::unordered_map<std::string, size_t> of_node;  // those that are set up

  void on_accept(io::Fd fd);
  void drop(Connection* connection);
  void count(const std::string& node, bool more);
};

struct DirectListener::Connection final : io::Stream::Handler, http::H2Session::Handler {
  explicit Connection(Impl& o) : owner(o), refused_until(o.loop, [this] { owner.drop(this); }) {}

  void on_connected() override {
    node = node_of(tls->peer(), owner.trust.domain);
    if (node.empty()) {
      EM_LOG(kWarn, "p2p", "direct path: a peer's certificate names no node of {}", owner.trust.domain);
      return owner.drop(this);
    }
    not_before = tls->peer()->not_before;
    if (auto ok = owner.trust.check(node, not_before); !ok) {
      EM_LOG(kWarn, "p2p", "direct path: a peer was refused: {}", ok.error().message);
      refusal = ok.error().message;
      refused_until.start(kTellRefused);
    }
    auto made = http::H2Session::server(owner.loop, std::move(tls), this, http::H2Options{});
    if (!made) return owner.drop(this);
    session = std::move(*made);
    if (!refusal.empty()) return;
    counted = true;
    owner.count(node, true);
  }
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error& error) override {
    EM_LOG(kDebug, "p2p", "direct path: a peer was refused: {}", error.message);
    owner.drop(this);
  }
  void on_connect(std::unique_ptr<http::H2Connect> connect) override {
    if (!refusal.empty()) return connect->reject(403, refusal);
    const http::ExtendedConnect* extended = connect->extended();
    std::optional<SockAddr> target;
    if (extended == nullptr) {
      if (auto plain = SockAddr::parse(connect->authority())) target = *plain;
    } else if (extended->protocol == kConnectUdp) {
      target = connect_udp_target(extended->path);
    } else {
      return connect->reject(501, "not a known protocol");
    }
    if (!target || target->port == 0) return connect->reject(400, "not an address");
    owner.callbacks.on_connect(
        std::make_unique<DirectIncoming>(std::move(connect), node, *target, extended != nullptr));
  }
  void on_close(const Error&) override { owner.drop(this); }

  Impl& owner;
  std::unique_ptr<tls::TlsStream> tls;
  std::unique_ptr<http::H2Session> session;
  std::string node;
  int64_t not_before = 0;
  bool counted = false;
  std::string refusal;  // not empty: opens nothing, and is told why until the timer ends it
  io::Timer refused_until;
};

void DirectListener::Impl::on_accept(io::Fd fd) {
  if (connections.size() >= max_connections) return;
  io::limit_silence(fd.get(), kMaxSilence);
  auto tcp = io::TcpStream::adopt(loop, std::move(fd));
  if (!tcp) return;
  auto tls = tls::TlsStream::server(loop, std::move(*tcp), context);
  if (!tls) return;
  auto connection = std::make_unique<Connection>(*this);
  connection->tls = std::move(*tls);
  connection->tls->set_handler(connection.get());
  connections.push_back(std::move(connection));
}

void DirectListener::Impl::drop(Connection* connection) {
  auto it = std::find_if(connections.begin(), connections.end(),
                         [&](const auto& c) { return c.get() == connection; });
  if (it == connections.end()) return;
  if (connection->counted) count(connection->node, false);
  loop.defer([gone = std::shared_ptr<Connection>(std::move(*it))] {});
  connections.erase(it);
}

void DirectListener::Impl::count(const std::string& node, bool more) {
  size_t& n = of_node[node];
  more ? ++n : --n;
  if (n == 0) of_node.erase(node);
  if (callbacks.on_connections) callbacks.on_connections(node);
}

Result<std::unique_ptr<DirectListener>> DirectListener::listen(io::Loop& loop, const SockAddr& addr,
                                                               DirectTrust trust,
                                                               std::shared_ptr<tls::Context> context,
                                                               size_t max_connections,
                                                               Callbacks callbacks) {
  auto impl = std::make_unique<Impl>(loop);
  impl->trust = std::move(trust);
  impl->context = std::move(context);
  impl->max_connections = max_connections;
  impl->callbacks = std::move(callbacks);
  io::ListenOptions options;
  options.congestion = "bbr";
  options.v6_only = false;
  EM_TRY(impl->listener, io::TcpListener::listen(
                             loop, addr,
                             [raw = impl.get()](io::Fd fd, const SockAddr&) { raw->on_accept(std::move(fd)); },
                             options));
  return std::unique_ptr<DirectListener>(new DirectListener(std::move(impl)));
}

DirectListener::DirectListener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DirectListener::~DirectListener() = default;
uint16_t DirectListener::port() const { return impl_->listener->local_addr().port; }
void DirectListener::set_context(std::shared_ptr<tls::Context> context) {
  impl_->context = std::move(context);
}
void DirectListener::close_revoked() {
  std::vector<Connection*> gone;
  for (const auto& c : impl_->connections)
    if (c->counted && !impl_->trust.check(c->node, c->not_before)) gone.push_back(c.get());
  for (Connection* c : gone) {
    EM_LOG(kWarn, "p2p", "direct path: the certificate of node {} was revoked, its connection ends", c->node);
    impl_->drop(c);
  }
}

size_t DirectListener::connections_of(const std::string& node) const {
  auto it = impl_->of_node.find(node);
  return it == impl_->of_node.end() ? 0 : it->second;
}

}  // namespace edgemesh::p2p
