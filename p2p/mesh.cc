#include "p2p/mesh.h"

#include <netdb.h>

#include <condition_variable>
#include <mutex>

#include "core/base/log.h"
#include "p2p/mesh_worker.h"
#include "p2p/netlink_watch.h"

namespace edgemesh::p2p {

std::string_view to_string(PathKind kind) {
  switch (kind) {
    case PathKind::kNone: return "none";
    case PathKind::kLocal: return "local";
    case PathKind::kDirect: return "direct";
    case PathKind::kPunched: return "punched";
    case PathKind::kRelayed: return "relayed";
  }
  return "none";
}

namespace {

constexpr Duration kWorkerWait = std::chrono::seconds(2);

// Runs `task` on the loop's thread and waits for it; at once when that is this thread.
void run_on(io::Loop& loop, const std::function<void()>& task) {
  if (loop.on_thread()) return task();
  std::mutex mutex;
  std::condition_variable done;
  bool finished = false;
  loop.post([&] {
    task();
    std::lock_guard lock(mutex);
    finished = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  if (done.wait_for(lock, kWorkerWait, [&] { return finished; })) return;
  // Nobody runs the loop any more: its thread was ended before the mesh. This thread takes it over.
  lock.unlock();
  loop.run_once();
}

// Blocking; on a pool thread.
std::string resolve(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return {};
  std::string out;
  if (auto addr = SockAddr::from_sockaddr(list->ai_addr, list->ai_addrlen); addr)
    out = addr->ip.to_string();
  freeaddrinfo(list);
  return out;
}

class MeshImpl final : public Mesh {
 public:
  MeshImpl(io::Loop& main, io::Loop& worker, MeshOptions options, Hooks hooks)
      : main_(main), loop_(worker), options_(std::move(options)), hooks_(std::move(hooks)) {}

  Result<> start(Acceptor& acceptor) {
    MeshWorker::Out out;
    out.send_signal = [this, alive = alive_](std::string node, std::string json) {
      main_.post([this, alive, node = std::move(node), json = std::move(json)]() mutable {
        if (*alive && hooks_.send_signal) hooks_.send_signal(node, std::move(json));
      });
    };
    out.changed = [this, alive = alive_] {
      main_.post([this, alive] {
        if (*alive && hooks_.on_change) hooks_.on_change();
      });
    };
    out.persist = [this, alive = alive_](std::vector<KnownPeer> peers) {
      main_.post([this, alive, peers = std::move(peers)]() mutable {
        if (*alive && hooks_.persist) hooks_.persist(std::move(peers));
      });
    };
    Result<> result;
    run_on(loop_, [&] {
      auto made = MeshWorker::create(loop_, options_, std::move(out), acceptor);
      if (made)
        worker_ = std::shared_ptr<MeshWorker>(std::move(*made));
      else
        result = edgemesh::fail(made.error());
    });
    if (!result) return result;
    port_ = worker_->direct_port();
    if (!options_.loopback_candidates) {
      addresses_ = local_addresses();
      auto watch = NetlinkWatch::start(main_, [this] {
        // Lifetimes of addresses are refreshed all the time: only another set is a change.
        auto now = local_addresses();
        if (now == addresses_) return;
        addresses_ = std::move(now);
        on_address_change();
      });
      if (watch)
        netlink_ = std::move(*watch);
      else
        EM_LOG(kWarn, "p2p", "changes of addresses go unnoticed: {}", watch.error().message);
    }
    return {};
  }

  ~MeshImpl() override {
    *alive_ = false;
    netlink_.reset();
    if (worker_ == nullptr) return;
    run_on(loop_, [this] { worker_.reset(); });
  }

  void on_signal(const std::string& from, std::string_view json) override {
    auto signal = parse_signal(json);
    if (!signal) {
      EM_LOG(kWarn, "p2p", "a signal of node {} was dropped: {}", from, signal.error().message);
      return;
    }
    post([from, s = std::move(*signal)](MeshWorker& w) { w.on_signal(from, s); });
  }
  void on_signal_error(const std::string& node, std::string_view reason) override {
    post([node, reason = std::string(reason)](MeshWorker& w) { w.on_signal_error(node, reason); });
  }
  void set_relay(TurnConfig config) override {
    if (config.host.empty() || IpAddr::parse(config.host)) {
      post([config = std::move(config)](MeshWorker& w) { w.set_relay(config); });
      return;
    }
    auto shared = std::make_shared<TurnConfig>(std::move(config));
    auto address = std::make_shared<std::string>();
    main_.offload([shared, address] { *address = resolve(shared->host); },
                  [this, alive = alive_, shared, address] {
                    if (!*alive) return;
                    if (address->empty())
                      EM_LOG(kWarn, "p2p", "the relay's name {} has no address", shared->host);
                    shared->host = *address;
                    post([shared](MeshWorker& w) { w.set_relay(*shared); });
                  });
  }
  Result<> set_identity(const std::string& cert_pem, const std::string& key_pem) override {
    EM_TRY(auto identity, QuicIdentity::create(cert_pem, key_pem, options_.ca_pem, options_.trust_domain,
                                               options_.revocations));
    EM_TRY(auto contexts, DirectContexts::create(cert_pem, key_pem, options_.ca_pem));
    post([identity, contexts](MeshWorker& w) { w.set_identity(identity, contexts); });
    return {};
  }
  void set_revoked(const std::vector<RevokedNode>& nodes) override {
    options_.revocations->set(nodes);
    post([](MeshWorker& w) { w.close_revoked(); });
  }
  void on_address_change() override {
    post([](MeshWorker& w) { w.on_address_change(); });
  }
  void known_peers(std::vector<KnownPeer> peers) override {
    post([peers = std::move(peers)](MeshWorker& w) { w.known_peers(peers); });
  }
  Dialer& dialer() override { return *worker_; }
  std::vector<PeerStatus> peers() const override { return worker_->snapshot().peers; }
  std::string nat_kind() const override { return worker_->snapshot().nat; }
  uint16_t direct_port() const override { return port_; }
  std::vector<SockAddr> direct_addresses() const override { return worker_->snapshot().direct; }

 private:
  template <class F>
  void post(F f) {
    loop_.post([worker = std::weak_ptr<MeshWorker>(worker_), f = std::move(f)] {
      if (auto w = worker.lock(); w != nullptr) f(*w);
    });
  }

  io::Loop& main_;
  io::Loop& loop_;
  MeshOptions options_;
  Hooks hooks_;
  std::shared_ptr<MeshWorker> worker_;  // reset on the worker loop
  std::unique_ptr<NetlinkWatch> netlink_;
  std::vector<IpAddr> addresses_;
  uint16_t port_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

Result<std::unique_ptr<Mesh>> Mesh::create(io::Loop& main, io::Loop& worker, MeshOptions options,
                                           Hooks hooks, Acceptor& acceptor) {
  if (options.node.empty()) return fail(ErrorCode::kInvalidArgument, "mesh: the node has no name");
  if (options.revocations == nullptr) options.revocations = std::make_shared<Revocations>();
  auto mesh = std::make_unique<MeshImpl>(main, worker, std::move(options), std::move(hooks));
  EM_TRY_VOID(mesh->start(acceptor));
  return std::unique_ptr<Mesh>(std::move(mesh));
}

}  // namespace edgemesh::p2p
