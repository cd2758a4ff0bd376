#include "p2p/quic_endpoint.h"

#include <algorithm>
#include <array>

#include "core/base/log.h"

namespace edgemesh::p2p {

QuicEndpoint::QuicEndpoint(io::Loop& loop, std::shared_ptr<const QuicIdentity> identity,
                           std::string peer_node, Handler& handler, QuicOptions options)
    : loop_(loop),
      identity_(std::move(identity)),
      peer_node_(std::move(peer_node)),
      handler_(handler),
      options_(options) {}

QuicEndpoint::~QuicEndpoint() = default;

template <class F>
void QuicEndpoint::each(F f) const {
  if (client_ != nullptr) f(*client_);
  for (const auto& server : servers_) f(*server);
}

void QuicEndpoint::use_path(DatagramPath* path) {
  if (path_ == path) return;
  path_ = path;
  if (path != nullptr) path_changed();
}

void QuicEndpoint::path_changed() {
  each([](QuicConnection& c) { c.on_path_changed(); });
}

Result<> QuicEndpoint::connect() {
  if (client_ != nullptr && !client_->closed()) return {};
  if (client_ != nullptr) {
    // Closed, but not yet reported: its end is told before it goes.
    loop_.defer([old = std::shared_ptr<QuicConnection>(std::move(client_))] {});
  }
  EM_TRY(client_, QuicConnection::client(loop_, identity_, peer_node_, *this, *this, options_));
  return {};
}

Result<std::unique_ptr<io::Stream>> QuicEndpoint::open(const SockAddr& target, bool udp) {
  EM_TRY_VOID(connect());
  return client_->open(target, udp);
}

Result<> QuicEndpoint::update_keys() {
  if (client_ == nullptr) return fail(ErrorCode::kUnavailable, "there is no tunnel");
  return client_->update_keys();
}

void QuicEndpoint::close(const Error& reason) {
  std::vector<QuicConnection*> all;
  each([&](QuicConnection& c) { all.push_back(&c); });
  for (auto* c : all) c->close(reason);
}

void QuicEndpoint::close_revoked(const Revocations& revocations) {
  std::vector<std::pair<QuicConnection*, Error>> all;
  each([&](QuicConnection& c) {
    // One whose peer is not known yet is checked by its handshake.
    if (c.peer_not_before() == 0) return;
    if (auto ok = revocations.check(peer_node_, c.peer_not_before()); !ok)
      all.emplace_back(&c, ok.error());
  });
  for (auto& [c, error] : all) c->close(error);
}

bool QuicEndpoint::idle() const { return client_ == nullptr && servers_.empty(); }

size_t QuicEndpoint::streams() const {
  size_t n = 0;
  each([&](QuicConnection& c) { n += c.streams(); });
  return n;
}

uint64_t QuicEndpoint::tx_bytes() const {
  uint64_t n = past_tx_;
  each([&](QuicConnection& c) { n += c.tx_bytes(); });
  return n;
}

uint64_t QuicEndpoint::rx_bytes() const {
  uint64_t n = past_rx_;
  each([&](QuicConnection& c) { n += c.rx_bytes(); });
  return n;
}

Duration QuicEndpoint::rtt() const {
  Duration best{};
  each([&](QuicConnection& c) {
    if (best == Duration::zero() && c.ready()) best = c.rtt();
  });
  return best;
}

bool QuicEndpoint::in_flight() const {
  bool any = false;
  each([&](QuicConnection& c) { any = any || (!c.closed() && c.bytes_in_flight() > 0); });
  return any;
}

size_t QuicEndpoint::send(std::span<const uint8_t> train, size_t segment) {
  // Waits for the path: an answer to a peer whose pair was ready before ours is not lost.
  if (path_ == nullptr) return 0;
  return path_->send(train, segment);
}

void QuicEndpoint::on_path_writable(DatagramPath& path) {
  if (&path != path_) return;
  std::vector<QuicConnection*> all;
  each([&](QuicConnection& c) { all.push_back(&c); });
  for (auto* c : all) c->on_output_writable();
}

QuicConnection* QuicEndpoint::find(std::span<const uint8_t> id) {
  if (client_ != nullptr && client_->owns(id)) return client_.get();
  for (auto it = servers_.rbegin(); it != servers_.rend(); ++it)
    if ((*it)->owns(id)) return it->get();
  return nullptr;
}

void QuicEndpoint::on_datagrams(DatagramPath& path, std::span<const uint8_t> train, size_t segment) {
  handler_.on_path_data(path, train.size());
  if (turn_ != loop_.now()) turn_bytes_ = 0;
  turn_ = loop_.now();
  turn_bytes_ += train.size();
  if (segment == 0) segment = train.size();
  TimePoint now = loop_.clock().now();
  while (!train.empty()) {
    auto datagram = train.first(std::min(segment, train.size()));
    train = train.subspan(datagram.size());
    one(path, datagram, now);
  }
  flush_touched();
}

void QuicEndpoint::flush_touched() {
  // Where the kernel gives datagrams one by one, users shall not be told of each: they would pass on
  // little writes. A flush runs users' callbacks; connections that end are only put aside until the
  // turn is over.
  bool now = turn_bytes_ >= kFlushBytes;
  if (now) turn_bytes_ = 0;
  std::array<QuicConnection*, 8> few;
  if (touched_.size() <= few.size()) {  // so it is but for odd peers; the list keeps its memory
    auto end = std::copy(touched_.begin(), touched_.end(), few.begin());
    touched_.clear();
    for (auto it = few.begin(); it != end; ++it) now ? (*it)->flush() : (*it)->flush_later();
    return;
  }
  std::vector<QuicConnection*> touched;
  touched.swap(touched_);
  for (auto* c : touched) now ? c->flush() : c->flush_later();
}

void QuicEndpoint::one(DatagramPath& path, std::span<const uint8_t> datagram, TimePoint now) {
  uint8_t first = datagram[0];
  if ((first & 0xc0) == 0x80) {
    handler_.on_other(path, datagram);
    return;
  }
  if ((first & 0x40) == 0) return;
  auto id = quic_destination_id(datagram);
  if (id.empty()) return;
  QuicConnection* conn = find(id);
  if (conn == nullptr) {
    if ((first & 0x80) != 0) accept(datagram, now);
    return;
  }
  if (touched_.empty() || touched_.back() != conn) touched_.push_back(conn);
  conn->receive(datagram, now);
}

void QuicEndpoint::accept(std::span<const uint8_t> first, TimePoint now) {
  if (servers_.size() >= kMaxServers) {
    // A peer that started anew has a right to be heard: a connection that never got ready makes room. One
    // that is ready has proved who it is; whoever sends from the peer's address must not end it.
    auto idle = std::find_if(servers_.begin(), servers_.end(), [](const auto& s) { return !s->ready(); });
    if (idle == servers_.end()) return;
    (*idle)->close({ErrorCode::kResourceExhausted, "too many tunnels of one peer", 0});
    return;
  }
  auto made = QuicConnection::server(loop_, identity_, peer_node_, *this, *this, options_, first);
  if (!made) return;  // stray bytes
  servers_.push_back(std::move(*made));
  touched_.push_back(servers_.back().get());
  servers_.back()->receive(first, now);
}

void QuicEndpoint::on_quic_closed(QuicConnection& connection, const Error& error) {
  past_tx_ += connection.tx_bytes();
  past_rx_ += connection.rx_bytes();
  std::shared_ptr<QuicConnection> gone;
  if (client_.get() == &connection) gone = std::move(client_);
  for (auto it = servers_.begin(); gone == nullptr && it != servers_.end(); ++it) {
    if (it->get() != &connection) continue;
    gone = std::move(*it);
    servers_.erase(it);
  }
  // It may be in the list of a train that is being read.
  loop_.defer([gone = std::move(gone)] {});
  EM_LOG(kDebug, "p2p", "tunnel with {} closed: {}", peer_node_, error.message);
  handler_.on_tunnel_closed(error);
}

}  // namespace edgemesh::p2p
