#include "p2p/mesh_worker.h"

#include <algorithm>

#include "core/base/log.h"
#include "core/tls/x509.h"
#include "p2p/netlink_watch.h"

namespace edgemesh::p2p {

namespace {
constexpr Duration kPublish = std::chrono::milliseconds(500);
// Addresses that arrive together are written together; an agent that ends soon loses none.
constexpr Duration kPersist = std::chrono::milliseconds(20);
}  // namespace

MeshWorker::MeshWorker(io::Loop& loop, MeshOptions options, Out out, Acceptor& acceptor)
    : shared_(loop, std::move(options)),
      out_(std::move(out)),
      acceptor_(acceptor),
      publish_timer_(loop, [this] { publish(); }),
      persist_timer_(loop, [this] { persist(); }) {
  shared_.instance = tls::sha256_hex(tls::random_bytes(32)).substr(0, 16);
  shared_.send_signal = [this](const std::string& node, std::string json) {
    out_.send_signal(node, std::move(json));
  };
  shared_.on_connect = [this](std::unique_ptr<IncomingConnect> connect) {
    acceptor_.on_connect(std::move(connect));
  };
  shared_.changed = [this] {
    if (publish_queued_) return;
    publish_queued_ = true;
    shared_.loop.defer([this, alive = alive_] {
      if (!*alive) return;
      publish_queued_ = false;
      publish();
      out_.changed();
    });
  };
  shared_.addresses_changed = [this] {
    if (!persist_timer_.active()) persist_timer_.start(kPersist);
  };
}

MeshWorker::~MeshWorker() {
  *alive_ = false;
  peers_.clear();
  shared_.buried->clear();
  listener_.reset();
}

Result<std::unique_ptr<MeshWorker>> MeshWorker::create(io::Loop& loop, MeshOptions options, Out out,
                                                       Acceptor& acceptor) {
  std::unique_ptr<MeshWorker> mesh(new MeshWorker(loop, std::move(options), std::move(out), acceptor));
  MeshShared& shared = mesh->shared_;
  const MeshOptions& o = shared.options;
  EM_TRY(shared.identity, QuicIdentity::create(o.cert_pem, o.key_pem, o.ca_pem, o.trust_domain,
                                                 o.revocations));
  EM_TRY(shared.contexts, DirectContexts::create(o.cert_pem, o.key_pem, o.ca_pem));
  if (o.direct_enabled) {
    DirectListener::Callbacks callbacks;
    callbacks.on_connect = shared.on_connect;
    callbacks.on_connections = [raw = mesh.get()](const std::string& node) {
      if (Peer* p = raw->peer(node, false); p != nullptr) p->touch();
    };
    EM_TRY(mesh->listener_, DirectListener::listen(loop, o.direct_listen,
                                                   DirectTrust{o.trust_domain, o.revocations},
                                                   shared.contexts.server, 4 * o.max_peers, callbacks));
  }
  if (o.ice_enabled) {
    EM_TRY(mesh->ice_, IceThread::start());
    shared.ice = mesh->ice_.get();
  }
  mesh->find_addresses();
  mesh->publish();
  return mesh;
}

void MeshWorker::find_addresses() {
  shared_.local = shared_.options.loopback_candidates ? std::vector<IpAddr>{IpAddr::loopback()}
                                                      : local_addresses();
  shared_.direct.clear();
  if (listener_ == nullptr) return;
  const IpAddr& listen = shared_.options.direct_listen.ip;
  for (const IpAddr& ip : shared_.local) {
    if (!listen.is_unspecified() && !(listen == ip)) continue;
    if (listen.is_unspecified() && !listen.is_v6() && ip.is_v6()) continue;
    shared_.direct.push_back({ip, listener_->port()});
  }
}

Peer* MeshWorker::peer(const std::string& node, bool make) {
  if (auto it = peers_.find(node); it != peers_.end()) return it->second.get();
  if (!make || node == shared_.options.node || node.empty()) return nullptr;
  if (peers_.size() >= shared_.options.max_peers) {
    auto idle = std::find_if(peers_.begin(), peers_.end(), [](const auto& p) { return p.second->idle(); });
    if (idle == peers_.end()) return nullptr;
    std::unique_lock lock(mutex_);
    published_.erase(idle->first);
    lock.unlock();
    peers_.erase(idle);
  }
  auto& made = peers_[node];
  made = std::make_unique<Peer>(shared_, node);
  made->touch();
  if (!publish_timer_.active()) publish_timer_.start_repeating(kPublish);
  return made.get();
}

Result<std::unique_ptr<io::Stream>> MeshWorker::open(const std::string& node, const SockAddr& target,
                                                     bool udp) {
  shared_.loop.assert_on_thread();
  if (node == shared_.options.node)
    return fail(ErrorCode::kInvalidArgument, "node {} is this node: no tunnel leads there", node);
  Peer* p = peer(node, true);
  if (p == nullptr)
    return fail(ErrorCode::kResourceExhausted, "node {}: {} peers are connected, the limit", node,
                peers_.size());
  return p->open(target, udp);
}

PathKind MeshWorker::path_kind(const std::string& node) const {
  auto it = peers_.find(node);
  return it == peers_.end() ? PathKind::kNone : it->second->kind();
}

void MeshWorker::on_signal(const std::string& from, const Signal& signal) {
  bool makes = signal.kind == Signal::Kind::kOffer;
  if (Peer* p = peer(from, makes); p != nullptr) p->on_signal(signal);
}

void MeshWorker::on_signal_error(const std::string& node, const std::string& reason) {
  if (Peer* p = peer(node, false); p != nullptr) p->on_signal_error(reason);
}

void MeshWorker::set_identity(std::shared_ptr<const QuicIdentity> identity, DirectContexts contexts) {
  shared_.identity = std::move(identity);
  shared_.contexts = std::move(contexts);
  if (listener_ != nullptr) listener_->set_context(shared_.contexts.server);
  for (auto& [name, p] : peers_) p->set_identity();
}

void MeshWorker::close_revoked() {
  if (listener_ != nullptr) listener_->close_revoked();
  for (auto& [name, p] : peers_) p->close_revoked();
}

void MeshWorker::on_address_change() {
  find_addresses();
  for (auto& [name, p] : peers_) p->on_address_change();
  shared_.changed();
}

void MeshWorker::known_peers(const std::vector<KnownPeer>& peers) {
  for (const auto& known : peers)
    if (Peer* p = peer(known.node, true); p != nullptr) p->set_direct(known.direct);
}

// Only of peers with which something happened: a thousand idle ones cost nothing.
void MeshWorker::publish() {
  bool news = published_nat_ != shared_.nat || published_direct_ != shared_.direct;
  if (shared_.touched.empty() && !news) return;
  if (published_nat_ != shared_.nat)  // it is in their reasons
    for (auto& [name, p] : peers_) p->touch();
  std::vector<Peer*> due;
  due.swap(shared_.touched);
  std::vector<PeerStatus> changed;
  changed.reserve(due.size());
  for (Peer* p : due) {
    if (!p->untouch()) p->touch();
    auto& s = changed.emplace_back(p->status());
    if (s.kind == PathKind::kNone && listener_ != nullptr && listener_->connections_of(s.node) > 0)
      s.kind = PathKind::kDirect;  // the peer's, for its streams to us
  }
  statuses_made_ += changed.size();
  std::lock_guard lock(mutex_);
  for (auto& s : changed) published_[s.node] = std::move(s);
  published_nat_ = shared_.nat;
  published_direct_ = shared_.direct;
}

MeshWorker::Snapshot MeshWorker::snapshot() const {
  Snapshot s;
  std::lock_guard lock(mutex_);
  s.peers.reserve(published_.size());
  for (const auto& [name, status] : published_) s.peers.push_back(status);
  s.nat = published_nat_;
  s.direct = published_direct_;
  return s;
}

void MeshWorker::persist() {
  std::vector<KnownPeer> known;
  for (auto& [name, p] : peers_)
    if (!p->direct_addresses().empty()) known.push_back({name, p->direct_addresses()});
  out_.persist(std::move(known));
}

}  // namespace edgemesh::p2p
