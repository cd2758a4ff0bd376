#include "p2p/peer.h"

#include <algorithm>

#include "core/base/log.h"
#include "core/tls/x509.h"
#include "p2p/dial_order.h"

namespace edgemesh::p2p {

namespace {
using namespace std::chrono_literals;  // NOLINT
constexpr Duration kFast = PeerSession::kHeartbeat;
constexpr Duration kSlow = PeerSession::kIdleHeartbeat;
constexpr Duration kSessionLimit = 10s;  // from its start to a pair
constexpr Duration kRetireFor = 3s;      // how long a replaced session still receives
constexpr Duration kWarmFor = 5min;      // after the last use
constexpr Duration kFirstBackoff = 500ms;
constexpr Duration kMaxBackoff = 30s;
constexpr Duration kDirectRetryFirst = 500ms;
constexpr Duration kDirectRetryMax = 30s;
constexpr size_t kMaxRetired = 4;

std::string hex(std::string_view bytes) {
  std::string out;
  for (char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned>(static_cast<uint8_t>(c)));
  return out;
}
}  // namespace

Peer::Peer(MeshShared& shared, std::string node)
    : shared_(shared),
      loop_(shared.loop),
      node_(std::move(node)),
      controlling_(shared.options.node < node_),
      endpoint_(loop_, shared.identity, node_, *this,
                [&] {
                  QuicOptions o;
                  o.max_streams = shared.options.max_streams_per_peer;
                  return o;
                }()),
      direct_(loop_, *this, node_, {shared.options.trust_domain, shared.options.revocations},
              shared.options.mark),
      timer_(loop_, [this] { tick(); }),
      backoff_(kFirstBackoff) {}

Peer::~Peer() {
  fail_waiting({ErrorCode::kCancelled, "the mesh was stopped", 0});
  // The endpoint's last packets go out while the path is still there; then nothing points at it.
  endpoint_.close({ErrorCode::kCancelled, "the node leaves the mesh", 0});
  endpoint_.use_path(nullptr);
  if (touched_) std::erase(shared_.touched, this);
}

void Peer::touch() {
  if (touched_) return;
  touched_ = true;
  shared_.touched.push_back(this);
}

bool Peer::untouch() {
  touched_ = false;
  return direct_.streams() == 0 && (!direct_.ready() || direct_.rtt() > Duration::zero());
}

PathKind Peer::kind() const {
  if (punched()) return PathKind::kPunched;
  if (direct_.ready()) return PathKind::kDirect;
  return live() ? PathKind::kRelayed : PathKind::kNone;
}

bool Peer::needed() const {
  return endpoint_.streams() > 0 || !waiting_.empty() || direct_.streams() > 0 ||
         (last_used_ != TimePoint{} && loop_.now() - last_used_ < kWarmFor);
}

bool Peer::idle() const {
  return current_ == nullptr && pending_ == nullptr && waiting_.empty() && endpoint_.idle() &&
         !direct_.ready();
}

Result<std::unique_ptr<io::Stream>> Peer::open(const SockAddr& target, bool udp) {
  if (endpoint_.streams() + direct_.streams() + waiting_.size() >= shared_.options.max_streams_per_peer)
    return fail(ErrorCode::kResourceExhausted, "too many streams to node {}", node_);
  auto stream = std::make_unique<PeerStream>(loop_, node_, target, udp);
  wake(2s);
  if (kind() != PathKind::kNone) {
    EM_TRY(auto below, open_best(target, udp));
    stream->bind(std::move(below), kind());
  } else {
    if (shared_.waiting >= shared_.options.max_waiting_opens)
      return fail(ErrorCode::kResourceExhausted, "too many streams wait for a path");
    ++shared_.waiting;
    waiting_.push_back(stream.get());
    stream->wait(this, shared_.options.open_timeout);
  }
  ensure_connecting();
  return std::unique_ptr<io::Stream>(std::move(stream));
}

Result<std::unique_ptr<io::Stream>> Peer::open_best(const SockAddr& target, bool udp) {
  if (!punched() && direct_.ready()) return direct_.open(target, udp);
  return endpoint_.open(target, udp);
}

// Streams that wait go to whatever is ready first.
void Peer::bind_waiting() {
  note_kind();
  if (waiting_.empty()) return;
  bool quic = live() && endpoint_.ready();
  if (!quic && !direct_.ready()) {
    if (live()) {
      if (auto ok = endpoint_.connect(); !ok) fail_waiting(ok.error());
    }
    return;
  }
  std::vector<PeerStream*> all;
  all.swap(waiting_);
  shared_.waiting -= all.size();
  for (PeerStream* stream : all) {
    bool use_direct = direct_.ready() && !(quic && punched());
    auto below = use_direct ? direct_.open(stream->target(), stream->udp())
                            : endpoint_.open(stream->target(), stream->udp());
    if (below)
      stream->bind(std::move(*below), use_direct ? PathKind::kDirect : current_->path().kind());
    else
      stream->fail(below.error());
  }
}

void Peer::fail_waiting(const Error& error) {
  std::vector<PeerStream*> all;
  all.swap(waiting_);
  shared_.waiting -= all.size();
  for (PeerStream* stream : all) stream->fail(error);
}

void Peer::remove(PeerStream* stream) {
  shared_.waiting -= std::erase(waiting_, stream);
  touch();
}

void Peer::ensure_connecting() {
  TimePoint now = loop_.now();
  if (shared_.options.direct_enabled && !direct_.ready() && !direct_.dialing() && !punched() &&
      !direct_addresses_.empty() && now >= next_direct_) {
    next_direct_ = now + direct_backoff_;
    direct_backoff_ = std::min(2 * direct_backoff_, kDirectRetryMax);
    direct_.dial(dial_order(direct_addresses_, shared_.local, direct_.remote()), shared_.contexts.client);
  }
  if (shared_.ice != nullptr && !live() && pending_ == nullptr && now >= next_attempt_) start_session();
}

IceOptions Peer::ice_options() const {
  IceOptions o;
  o.controlling = controlling_;
  o.local = shared_.local;
  o.turn = shared_.turn;
  o.relay_only = shared_.options.relay_only;
  return o;
}

void Peer::start_session() {
  next_attempt_ = loop_.now() + backoff_;
  backoff_ = std::min(2 * backoff_, kMaxBackoff);
  PeerSession::Context context{loop_, *shared_.ice, endpoint_};
  pending_ = std::make_unique<PeerSession>(context, static_cast<PeerSession::Owner&>(*this), hex(tls::random_bytes(8)), true, ice_options());
  wake(Duration::zero());
}

void Peer::destroy(std::unique_ptr<PeerSession> session) {
  if (session == nullptr) return;
  if (endpoint_.path() == &session->path()) endpoint_.use_path(nullptr);
  shared_.bury(std::move(session));
}

void Peer::retire(std::unique_ptr<PeerSession> session) {
  if (session == nullptr) return;
  retired_.emplace_back(loop_.now() + kRetireFor, std::move(session));
  if (retired_.size() <= kMaxRetired) return;
  destroy(std::move(retired_.front().second));
  retired_.erase(retired_.begin());
}

// The session that was set up becomes the one in use.
void Peer::promote() {
  std::unique_ptr<PeerSession> old = std::move(current_);
  current_ = std::move(pending_);
  endpoint_.use_path(&current_->path());
  retire(std::move(old));
  backoff_ = kFirstBackoff;
  next_attempt_ = {};
}

void Peer::session_path(PeerSession& session) {
  if (&session == pending_.get()) {
    bool better = session.path().kind() == PathKind::kPunched || !punched();
    if (!live() || better) promote();
  } else if (&session == current_.get()) {
    endpoint_.path_changed();
  }
  if (&session == current_.get())
    EM_LOG(kInfo, "p2p", "node {}: {} path, {} to {}", node_, to_string(session.path().kind()),
           session.path().local_text(), session.path().remote_text());
  if (std::string nat = session.nat_guess(); !nat.empty()) shared_.nat = nat;
  wake(Duration::zero());
  bind_waiting();
}

void Peer::session_failed(PeerSession& session, const std::string& reason) {
  last_reason_ = reason;
  if (&session == pending_.get()) {
    destroy(std::move(pending_));
  } else if (&session == current_.get()) {
    destroy(std::move(current_));
    note_kind();
  }
  wake(Duration::zero());
}

void Peer::direct_ready() {
  direct_backoff_ = kDirectRetryFirst;
  EM_LOG(kInfo, "p2p", "node {}: direct path to {}", node_, direct_.remote().to_string());
  bind_waiting();
}

void Peer::direct_closed(const Error& error) {
  touch();
  // Someone else answers at the peer's address: worth a look by a person.
  if (error.code == ErrorCode::kUnauthenticated)
    EM_LOG(kWarn, "p2p", "node {}: direct path refused: {}", node_, error.message);
  if (!live()) last_reason_ = fmt::format("direct path: {}", error.message);
  note_kind();
  // No other way is being tried: whoever waits may turn to another node at once.
  if (error.code == ErrorCode::kUnauthenticated && !live() && pending_ == nullptr)
    fail_waiting(error.with_context("direct path"));
}

void Peer::on_tunnel_connect(std::unique_ptr<IncomingConnect> connect) {
  last_used_ = loop_.now();
  wake(2s);
  shared_.on_connect(std::move(connect));
}

void Peer::on_tunnel_closed(const Error& error) {
  touch();
  if (error.code == ErrorCode::kUnauthenticated) {
    EM_LOG(kWarn, "p2p", "node {}: refused: {}", node_, error.message);
    last_reason_ = error.message;
    if (!direct_.ready()) fail_waiting(error);
    return;
  }
  if (live()) bind_waiting();
}

PeerSession* Peer::session_of(const DatagramPath& path) {
  if (current_ != nullptr && &current_->path() == &path) return current_.get();
  if (pending_ != nullptr && &pending_->path() == &path) return pending_.get();
  for (auto& [end, session] : retired_)
    if (&session->path() == &path) return session.get();
  return nullptr;
}

void Peer::on_other(DatagramPath& path, std::span<const uint8_t> datagram) {
  PeerSession* session = session_of(path);
  if (session == nullptr) return;
  bool was_live = live();
  session->on_heartbeat(datagram);
  if (!was_live && live()) bind_waiting();
}

void Peer::on_path_data(DatagramPath& path, size_t) {
  touch();
  if (PeerSession* session = session_of(path); session != nullptr) session->note_data();
}

void Peer::on_address_change() {
  if (current_ == nullptr && pending_ == nullptr) return;
  next_direct_ = {};
  if (!needed()) {
    destroy(std::move(pending_));
    destroy(std::move(current_));
    note_kind();
    return;
  }
  // The agent that is being set up gathered on the old addresses.
  destroy(std::move(pending_));
  start_session();
}

void Peer::set_direct(std::vector<SockAddr> addresses) {
  if (addresses.size() > kMaxSignalAddresses) addresses.resize(kMaxSignalAddresses);
  if (addresses == direct_addresses_) return;
  direct_addresses_ = std::move(addresses);
  next_direct_ = {};
  direct_backoff_ = kDirectRetryFirst;
  shared_.addresses_changed();
}

void Peer::set_identity() { endpoint_.set_identity(shared_.identity); }

void Peer::close_revoked() {
  direct_.close_revoked();
  if (shared_.options.revocations != nullptr) endpoint_.close_revoked(*shared_.options.revocations);
}

void Peer::wake(Duration active_for) {
  touch();
  if (active_for > Duration::zero()) {
    last_used_ = loop_.now();
    active_until_ = std::max(active_until_, loop_.now() + active_for);
  }
  if (!timer_.active() || timer_.deadline() > loop_.now() + kFast) timer_.start(Duration::zero());
}

void Peer::tick_sessions(bool active) {
  TimePoint now = loop_.now();
  if (current_ != nullptr) {
    bool was = current_->suspect();
    current_->tick(active);
    if (!was && current_->suspect()) {
      last_reason_ = "the peer does not answer on its path";
      EM_LOG(kInfo, "p2p", "node {}: {} path is dead", node_, to_string(current_->path().kind()));
    }
  }
  if (pending_ != nullptr && pending_->connected() && !live()) {
    promote();
    bind_waiting();
  }
  if (pending_ != nullptr && !pending_->connected() && now - pending_->created() > kSessionLimit)
    session_failed(*pending_, pending_->remote_known() ? "no pair of addresses works"
                                                       : "the node did not answer the offer");
  while (!retired_.empty() && retired_.front().first <= now) {
    destroy(std::move(retired_.front().second));
    retired_.erase(retired_.begin());
  }
}

void Peer::tick() {
  touch();
  TimePoint now = loop_.now();
  uint64_t bytes = endpoint_.tx_bytes() + endpoint_.rx_bytes();
  bool moved = bytes != last_bytes_;
  last_bytes_ = bytes;
  if (moved) last_used_ = now;
  bool active = moved || now < active_until_ || !waiting_.empty() || endpoint_.in_flight();
  tick_sessions(active);
  if (needed()) {
    ensure_connecting();
  } else if (current_ != nullptr && current_->suspect()) {
    destroy(std::move(current_));
  }
  if (endpoint_.streams() == 0 && direct_.streams() == 0 && waiting_.empty() &&
      now - last_used_ > shared_.options.idle_close && !idle())
    say_bye();
  if (++ticks_ % 20 == 0) direct_.measure();
  note_kind();
  bool fast = active || endpoint_.streams() > 0 || !waiting_.empty() || pending_ != nullptr ||
              !retired_.empty() || (current_ != nullptr && current_->probing());
  if (fast)
    timer_.start(kFast);
  else if (current_ != nullptr || direct_.ready() || needed())
    timer_.start(kSlow);
}

void Peer::note_kind() {
  touch();
  PathKind now = kind();
  if (now == told_kind_) return;
  told_kind_ = now;
  since_ = std::chrono::duration_cast<std::chrono::seconds>(
               loop_.clock().wall_now().time_since_epoch())
               .count();
  shared_.changed();
}

std::string Peer::reason_text() const {
  PathKind k = kind();
  if (k == PathKind::kNone) return last_reason_;
  if (k != PathKind::kRelayed) return {};
  auto or_unknown = [](const std::string& nat) { return nat.empty() ? "unknown" : nat; };
  return fmt::format("no direct pair of addresses works (our NAT: {}, the peer's: {})",
                     or_unknown(shared_.nat), or_unknown(nat_));
}

PeerStatus Peer::status() const {
  PeerStatus s;
  s.node = node_;
  s.kind = kind();
  Duration rtt{};
  if (s.kind == PathKind::kDirect) {
    rtt = direct_.rtt();
    s.remote = direct_.remote().to_string();
  } else if (current_ != nullptr) {
    rtt = endpoint_.rtt() > Duration::zero() ? endpoint_.rtt() : current_->rtt();
    s.local = current_->path().local_text();
    s.remote = current_->path().remote_text();
  }
  s.rtt_us = std::chrono::duration_cast<std::chrono::microseconds>(rtt).count();
  s.tx_bytes = endpoint_.tx_bytes() + direct_.tx_bytes();
  s.rx_bytes = endpoint_.rx_bytes() + direct_.rx_bytes();
  s.streams = endpoint_.streams() + direct_.streams() + waiting_.size();
  s.nat_kind = nat_;
  s.reason = reason_text();
  s.since = since_;
  return s;
}

}  // namespace edgemesh::p2p
