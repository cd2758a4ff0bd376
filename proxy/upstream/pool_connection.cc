#include "proxy/upstream/pool_impl.h"

namespace edgemesh::proxy {

PoolConnection::PoolConnection(UpstreamPool& pool, HostPool& owner, Host& host,
                               model::RequestPriority priority, const ProxiedAddrs* addrs)
    : pool_(pool), owner_(owner), host_(&host), priority_(priority) {
  info_.id = pool.next_id_++;
  if (addrs != nullptr) addrs_ = std::make_unique<ProxiedAddrs>(*addrs);
}

PoolConnection::~PoolConnection() = default;

void PoolConnection::start(Connecting connecting) {
  info_.path = connecting.path;
  tls_ = connecting.tls;
  stream_ = std::move(connecting.stream);
  stream_->set_handler(this);
  opened_ = pool_.options_.loop.now();
  const Duration timeout = cluster().config().connect_timeout;
  connect_timer_ = std::make_unique<io::Timer>(pool_.options_.loop, [this, timeout] {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
    fail_connect(
        PoolFailure::kConnectTimeout,
        Error{ErrorCode::kTimeout,
              fmt::format("{}: not connected in {} ms", host_->addr().to_string(), ms), 0});
  });
  connect_timer_->start(timeout);
}

Result<HttpVersion> PoolConnection::agreed_version() const {
  const auto& config = cluster().config();
  const bool wants_h2 = config.protocol == model::UpstreamProtocol::kHttp2;
  if (tls_ == nullptr) return wants_h2 ? HttpVersion::kHttp2 : HttpVersion::kHttp11;
  if (config.tls != nullptr) EM_TRY_VOID(check_peer_names(*config.tls, *tls_));
  const bool is_h2 = tls_->alpn() == "h2";
  if (wants_h2 && !is_h2)
    return fail(ErrorCode::kProtocol, "{}: does not speak HTTP/2 (ALPN '{}')",
                host_->addr().to_string(), tls_->alpn());
  if (config.protocol == model::UpstreamProtocol::kHttp1) return HttpVersion::kHttp11;
  return is_h2 ? HttpVersion::kHttp2 : HttpVersion::kHttp11;
}

void PoolConnection::on_connected() {
  if (state_ != State::kConnecting) return;  // the codec says it, too
  auto version = agreed_version();
  if (!version) return fail_connect(PoolFailure::kConnectFailed, version.error());
  info_.version = *version;
  info_.path = p2p::path_of(*stream_, info_.path);
  const auto& make = is_h2() ? pool_.options_.make_h2 : pool_.options_.make_h1;
  const ClientTarget target{host_->addr(), tls_ != nullptr ? tls_->shared_peer() : nullptr,
                            cluster().config()};
  codec_ = make(std::move(stream_), target, *this);
  tls_ = nullptr;
  connect_timer_.reset();
  state_ = State::kOpen;
  opened_ = pool_.options_.loop.now();
  report_outcome(*host_, Outcome::kConnected);
  owner_.on_connect_done(*this);
}

void PoolConnection::on_error(const Error& error) {
  if (state_ == State::kConnecting) fail_connect(PoolFailure::kConnectFailed, error);
}

void PoolConnection::fail_connect(PoolFailure failure, const Error& error) {
  const Error copy = error;  // its owner goes away
  HostRef keep = host_;
  auto& stats = cluster().stats();
  (failure == PoolFailure::kConnectTimeout ? stats.connect_timeouts : stats.connect_failures).add();
  host_->stats().connect_failures.add();
  report_outcome(*host_, Outcome::kLocalFailure);
  HostPool& owner = owner_;
  close();
  owner.on_connect_failed(*this, failure, copy);
}

bool PoolConnection::worn_out() const {
  const auto& config = cluster().config();
  if (config.max_requests_per_connection > 0 &&
      info_.requests >= config.max_requests_per_connection)
    return true;
  return config.max_connection_age > Duration::zero() &&
         pool_.options_.loop.now() - opened_ >= config.max_connection_age;
}

bool PoolConnection::can_open() {
  if (state_ != State::kOpen || codec_->available() == 0) return false;
  return !is_h2() || codec_->active_streams() < cluster().config().max_streams;
}

StreamPtr PoolConnection::open(HttpStream::Handler* handler, ConnectionInfo* info) {
  if (state_ != State::kOpen) return nullptr;
  if (codec_->closing() || worn_out()) {
    drain();
    return nullptr;
  }
  StreamPtr stream = codec_->open(handler);
  if (stream == nullptr) {
    if (codec_->closing()) drain();
    return nullptr;
  }
  *info = info_;
  ++info_.requests;
  pool_.note_used(*this);
  if (!is_h2()) static_cast<ListNode<PoolConnection, ReadyTag>&>(*this).unlink();
  if (worn_out()) {
    cluster().stats().closed_max_requests.add();
    drain();
  }
  return stream;
}

void PoolConnection::drain() {
  if (state_ == State::kDead || state_ == State::kDraining) return;
  if (state_ == State::kConnecting || (codec_->active_streams() == 0)) return close();
  state_ = State::kDraining;
  pool_.note_used(*this);
  static_cast<ListNode<PoolConnection, ReadyTag>&>(*this).unlink();
}

void PoolConnection::close() {
  if (state_ == State::kDead) return;
  owner_.forget(*this);
  state_ = State::kDead;
  connect_timer_.reset();
  // We may be in one of its callbacks, or in one of its codec's.
  pool_.options_.loop.defer([self = std::unique_ptr<PoolConnection>(this)] {});
}

void PoolConnection::on_available() {
  if (state_ == State::kDead) return;
  if (state_ == State::kOpen && (codec_->closing() || worn_out())) state_ = State::kDraining;
  if (state_ == State::kDraining) {
    static_cast<ListNode<PoolConnection, ReadyTag>&>(*this).unlink();
    pool_.note_used(*this);
    // A codec that is closing ends by itself; it may still have its last bytes to send.
    if (codec_->active_streams() == 0 && !codec_->closing()) {
      HostPool& owner = owner_;
      close();
      owner.on_gone();
    }
    return;
  }
  owner_.on_open(*this);
}

void PoolConnection::on_closed(const Error&) {
  if (state_ == State::kDead) return;
  cluster().stats().closed_by_peer.add();
  HostRef keep = host_;
  HostPool& owner = owner_;
  close();
  owner.on_gone();
}

}  // namespace edgemesh::proxy
