#include "proxy/worker.h"

#include <fcntl.h>
#include <pthread.h>

#include "core/base/log.h"
#include "proxy/udp/parcel_way.h"

namespace edgemesh::proxy {

namespace {

// A service of one port for a static listener.
std::shared_ptr<const discovery::ServiceEntry> fixed_service(const ListenerOptions& options,
                                                             const std::string& node) {
  if (options.kind != ListenerOptions::Kind::kStatic &&
      options.kind != ListenerOptions::Kind::kStaticUdp)
    return nullptr;
  auto service = std::make_shared<discovery::ServiceEntry>();
  service->ns = "static";
  service->name = options.name.empty() ? options.listen.to_string() : options.name;
  discovery::Port& port = service->ports.emplace_back();
  port.port = options.listen.port;
  for (const SockAddr& addr : options.endpoints) {
    discovery::Endpoint& endpoint = port.endpoints.emplace_back();
    endpoint.addr = addr;
    endpoint.node = node;
  }
  return service;
}

bool is_udp(const ListenerOptions& options) {
  return options.kind == ListenerOptions::Kind::kTransparentUdp ||
         options.kind == ListenerOptions::Kind::kStaticUdp;
}

UdpOptions udp_options(const ProxyOptions& proxy) {
  const L4Options& l4 = proxy.l4;
  UdpOptions options;
  options.node = l4.node;
  options.mark = l4.mark;
  options.capture_cidrs = l4.capture_cidrs;
  options.access_log = l4.access_log;
  options.inbound_idle_timeout = 2 * proxy.udp_idle_timeout;
  options.max_inbound_flows = proxy.udp_max_flows;
  return options;
}

// Setting the algorithm costs a call a connection: it is done only where the system's is BBR.
L4Options with_congestion(L4Options options) {
  io::Fd fd(open("/proc/sys/net/ipv4/tcp_congestion_control", O_RDONLY | O_CLOEXEC));
  char name[16] = {};
  if (fd.valid() && read(fd.get(), name, sizeof name - 1) > 0 &&
      !std::string_view(name).starts_with("bbr"))
    options.local_congestion.clear();
  return options;
}

}  // namespace

Worker::Worker(std::unique_ptr<io::Loop> loop, const ProxyOptions& options, obs::Registry& registry,
               int index)
    : loop_(std::move(loop)),
      context_(std::make_unique<WorkerContext>(*loop_, with_congestion(options.l4),
                                               discovery::Picker(options.l4.node, options.l4.zone),
                                               registry, index)),
      udp_(*loop_, udp_options(options), registry, index),
      udp_inbound_(udp_, context_->snapshot),
      inbound_(*context_, &udp_inbound_) {
  if (options.telemetry != nullptr)
    context_->telemetry = &options.telemetry->worker(static_cast<size_t>(index));
}

Result<std::unique_ptr<Worker>> Worker::create(int index, const ProxyOptions& options,
                                               obs::Registry& registry) {
  EM_TRY(auto loop, io::Loop::create());
  std::unique_ptr<Worker> worker(new Worker(std::move(loop), options, registry, index));
  for (const ListenerOptions& listener : options.listeners) {
    auto listening = is_udp(listener) ? worker->listen_udp(listener, options)
                                      : worker->listen(listener, options.workers > 1);
    if (listening) continue;
    if (is_udp(listener)) worker->udp_listeners_.push_back(nullptr);
    if (!listener.optional) return fail(listening.error());
    worker->addrs_.push_back(SockAddr{});
    EM_LOG(kInfo, "proxy", "not listening on {}: {}", listener.listen.to_string(),
           listening.error().message);
  }
  return worker;
}

Result<> Worker::listen(const ListenerOptions& options, bool reuse_port) {
  io::ListenOptions listen_options;
  listen_options.reuse_port = reuse_port;
  listen_options.transparent = options.kind == ListenerOptions::Kind::kTransparent;
  // Accepted sockets inherit both: no call a connection is needed.
  listen_options.no_delay = true;
  listen_options.congestion = context_->options.local_congestion;
  auto fixed = fixed_service(options, context_->options.node);
  bool redirected = options.kind == ListenerOptions::Kind::kRedirect;
  SockAddr listen_addr = options.listen;
  auto on_accept = [this, fixed, redirected, listen_addr](io::Fd fd, const SockAddr& peer) {
    if (fixed) {
      L4Connection::accept(*context_, std::move(fd), peer, listen_addr, fixed);
      return;
    }
    auto destination = io::original_dst(fd.get(), redirected);
    if (destination && context_->take_http && context_->take_http(fd, peer, *destination)) return;
    // Without one somebody addressed the listener itself; that is no service either.
    L4Connection::accept(*context_, std::move(fd), peer, destination ? *destination : listen_addr,
                         nullptr);
  };
  EM_TRY(auto listener,
         io::TcpListener::listen(*loop_, options.listen, std::move(on_accept), listen_options));
  addrs_.push_back(listener->local_addr());
  listeners_.push_back(std::move(listener));
  return {};
}

Result<> Worker::listen_udp(const ListenerOptions& options, const ProxyOptions& proxy) {
  UdpListenOptions listen_options;
  listen_options.listen = options.listen;
  listen_options.transparent = options.kind == ListenerOptions::Kind::kTransparentUdp;
  listen_options.reuse_port = proxy.workers > 1;
  listen_options.index = udp_listeners_.size();
  listen_options.idle_timeout = proxy.udp_idle_timeout;
  listen_options.max_flows = proxy.udp_max_flows;
  auto directory = std::make_unique<ServiceDirectory>(
      proxy.l4.node, proxy.l4.zone, context_->snapshot, fixed_service(options, proxy.l4.node));
  EM_TRY(auto listener, UdpListener::listen(udp_, listen_options, std::move(directory)));
  addrs_.push_back(listener->local_addr());
  udp_listeners_.push_back(std::move(listener));
  return {};
}

void Worker::take_parcel(const UdpParcel& parcel) {
  if (parcel.listener < udp_listeners_.size() && udp_listeners_[parcel.listener])
    udp_listeners_[parcel.listener]->deliver(parcel);
}

Worker::~Worker() {
  stop();
  *alive_ = false;
  listeners_.clear();
  udp_listeners_.clear();
  context_->on_empty = nullptr;
  context_->abort_all();
}

void Worker::set_dialer(p2p::Dialer* dialer) {
  loop_->post([this, alive = alive_, dialer] {
    if (!*alive) return;
    context_->dialer = dialer;
    udp_.dialer = dialer;
  });
}

void Worker::set_tunnel_worker(Worker& other) {
  context_->hand_over = [&other](Handover handover) {
    auto shared = std::make_shared<Handover>(std::move(handover));
    other.loop_->post([&other, alive = other.alive_, shared] {
      if (*alive) L4Connection::resume(*other.context_, std::move(*shared));
    });
  };
  udp_.hand_over =
      parcel_way(*other.loop_, [&other, alive = other.alive_](const UdpParcel& parcel) {
        if (*alive) other.take_parcel(parcel);
      });
}

void Worker::start() {
  if (thread_.joinable()) return;
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "em-worker");
    loop_->run();
    // What is left ends on its own thread.
    listeners_.clear();
    udp_listeners_.clear();
    udp_inbound_.abort_all();
    context_->on_empty = nullptr;
    context_->abort_all();
  });
}

void Worker::set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot) {
  loop_->post([this, alive = alive_, snapshot] {
    if (*alive) context_->snapshot = snapshot;
  });
}

void Worker::set_capture_cidrs(std::vector<Cidr> cidrs) {
  loop_->post([this, alive = alive_, cidrs = std::move(cidrs)] {
    if (!*alive) return;
    context_->options.capture_cidrs = cidrs;
    udp_.options.capture_cidrs = cidrs;
  });
}

void Worker::drain(io::Task done) {
  auto shared = std::make_shared<io::Task>(std::move(done));
  loop_->post([this, alive = alive_, shared] {
    if (!*alive) return;
    listeners_.clear();
    on_drained_ = std::move(*shared);
    auto finish = [this] {
      if (auto task = std::exchange(on_drained_, nullptr)) task();
    };
    if (context_->connections == 0)
      finish();
    else
      context_->on_empty = finish;
  });
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
}

std::vector<SockAddr> Worker::listen_addrs() const {
  return addrs_;
}

}  // namespace edgemesh::proxy
