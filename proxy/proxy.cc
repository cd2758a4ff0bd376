#include "proxy/proxy.h"

#include <sys/resource.h>

#include <algorithm>

#include "core/base/log.h"
#include "proxy/worker.h"

namespace edgemesh::proxy {

std::vector<ListenerOptions> capture_listeners(uint16_t tproxy_port, uint16_t redirect_port) {
  using Kind = ListenerOptions::Kind;
  return {
      {Kind::kTransparent, {IpAddr::loopback(), tproxy_port}, "", {}, true},
      {Kind::kTransparent, {IpAddr::loopback(true), tproxy_port}, "", {}, true},
      {Kind::kRedirect, {IpAddr::any(false), redirect_port}, "", {}, false},
      {Kind::kRedirect, {IpAddr::any(true), redirect_port}, "", {}, true},
      {Kind::kTransparentUdp, {IpAddr::loopback(), tproxy_port}, "", {}, true},
      {Kind::kTransparentUdp, {IpAddr::loopback(true), tproxy_port}, "", {}, true},
  };
}

namespace {

// A connection has two descriptors, a flow of datagrams has one, and running out of them hits
// everything else in the process: the soft limit is raised, and what it allows bounds both.
void limit_descriptors(ProxyOptions& options) {
  constexpr size_t kOthers = 512;  // listeners, pipes, tunnels, the rest of the agent
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur == RLIM_INFINITY) return;
  size_t usable = limit.rlim_cur > 2 * kOthers ? limit.rlim_cur - kOthers : limit.rlim_cur / 2;
  const auto workers = static_cast<size_t>(options.workers);
  options.udp_max_flows =
      std::min(options.udp_max_flows, std::max<size_t>(1, usable / 6 / workers));
  usable -= std::min(usable, options.udp_max_flows * (workers + 1));  // and those of peers
  size_t each = std::max<size_t>(1, usable / 2 / workers);
  if (each < options.l4.max_connections)
    EM_LOG(kInfo, "proxy", "the limit of {} open files allows {} connections a worker",
           static_cast<uint64_t>(limit.rlim_cur), each);
  options.l4.max_connections = std::min(each, options.l4.max_connections);
}

}  // namespace

struct Proxy::Impl {
  Impl(io::Loop& loop, ProxyOptions o)
      : main(loop),
        options(std::move(o)),
        drain_timer(loop, [this] { end_drain("the drain timeout passed"); }) {}

  void end_drain(const char* why) {
    if (!on_drained) return;
    drain_timer.stop();
    EM_LOG(kInfo, "proxy", "drained: {}", why);
    auto done = std::exchange(on_drained, nullptr);
    done();
  }

  io::Loop& main;
  ProxyOptions options;
  std::vector<std::unique_ptr<Worker>> workers;
  size_t busy = 0;  // workers that still have connections, while draining
  io::Task on_drained;
  io::Timer drain_timer;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
};

Proxy::Proxy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Proxy>> Proxy::create(io::Loop& main, ProxyOptions options,
                                             obs::Registry& registry) {
  if (options.workers < 1 || options.workers > 256)
    return fail(ErrorCode::kInvalidArgument, "proxy.workers: {} is not allowed (want 1 to 256)",
                options.workers);
  limit_descriptors(options);
  auto impl = std::make_unique<Impl>(main, options);
  for (int i = 0; i < options.workers; ++i) {
    EM_TRY(auto worker, Worker::create(i, options, registry));
    // A port that the system chose for the first worker is everybody's.
    auto addrs = worker->listen_addrs();
    for (size_t k = 0; i == 0 && k < addrs.size(); ++k)
      if (addrs[k].port != 0) options.listeners[k].listen.port = addrs[k].port;
    if (i > 0) worker->set_tunnel_worker(*impl->workers.front());
    impl->workers.push_back(std::move(worker));
  }
  return std::unique_ptr<Proxy>(new Proxy(std::move(impl)));
}

Proxy::~Proxy() {
  *impl_->alive = false;
  stop();
}

io::Loop& Proxy::tunnel_loop() {
  return impl_->workers.front()->loop();
}
std::vector<io::Loop*> Proxy::worker_loops() {
  std::vector<io::Loop*> loops;
  for (auto& worker : impl_->workers) loops.push_back(&worker->loop());
  return loops;
}
void Proxy::set_take_http(TakeHttp take) {
  for (size_t i = 0; i < impl_->workers.size(); ++i)
    impl_->workers[i]->context().take_http =
        [take, index = static_cast<int>(i)](io::Fd& fd, const SockAddr& peer,
                                            const SockAddr& destination) {
          return take(index, fd, peer, destination);
        };
}
p2p::Acceptor& Proxy::acceptor() {
  return impl_->workers.front()->acceptor();
}
void Proxy::set_dialer(p2p::Dialer* dialer) {
  impl_->workers.front()->set_dialer(dialer);
}

void Proxy::start() {
  for (auto& worker : impl_->workers) worker->start();
}

void Proxy::set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot) {
  for (auto& worker : impl_->workers) worker->set_snapshot(snapshot);
}

void Proxy::set_capture_cidrs(const std::vector<Cidr>& cidrs) {
  for (auto& worker : impl_->workers) worker->set_capture_cidrs(cidrs);
}

void Proxy::drain(io::Task done) {
  impl_->on_drained = std::move(done);
  impl_->busy = impl_->workers.size();
  impl_->drain_timer.start(impl_->options.drain_timeout);
  for (auto& worker : impl_->workers) {
    worker->drain([impl = impl_.get(), alive = impl_->alive] {
      impl->main.post([impl, alive] {
        if (*alive && --impl->busy == 0) impl->end_drain("no connection is left");
      });
    });
  }
}

void Proxy::stop() {
  // The tunnels' worker last: others may hand connections to it until they end.
  for (auto it = impl_->workers.rbegin(); it != impl_->workers.rend(); ++it) (*it)->stop();
}

std::vector<SockAddr> Proxy::listen_addrs() const {
  return impl_->workers.front()->listen_addrs();
}

Proxy::Totals Proxy::totals() const {
  Totals totals;
  for (const auto& worker : impl_->workers) {
    const WorkerMetrics& m = worker->context().metrics;
    totals.opened += m.opened.value();
    totals.active += static_cast<uint64_t>(m.active.value());
    totals.failed += m.failed();
    totals.bytes_sent += m.to_upstream.value();
    totals.bytes_received += m.to_client.value();
  }
  return totals;
}

}  // namespace edgemesh::proxy
