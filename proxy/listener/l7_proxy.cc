#include <malloc.h>

#include <algorithm>
#include <future>
#include <set>

#include "core/base/log.h"
#include "proxy/listener/l7_side.h"

namespace edgemesh::proxy {

namespace {

// Beyond this size of a configuration, what the one before left in the heap is worth giving back.
constexpr size_t kManyObjects = 500;

bool same_addresses(const model::Listener& a, const model::Listener& b) {
  return a.kind == b.kind && a.address == b.address && a.more_addresses == b.more_addresses &&
         a.transparent == b.transparent && a.backlog == b.backlog &&
         a.udp_cluster == b.udp_cluster && a.udp_idle_timeout == b.udp_idle_timeout &&
         a.udp_max_flows == b.udp_max_flows;
}

}  // namespace

L7Proxy::L7Proxy(io::Loop& main, std::vector<io::Loop*> workers, L7ProxyOptions options)
    : main_(main),
      loops_(std::move(workers)),
      options_(std::move(options)),
      dialer_place_(std::make_shared<DialerPlace>(*loops_.front())),
      overload_(std::make_shared<Overload>()),
      drain_timer_(main,
                   [this] {
                     if (auto done = std::exchange(on_drained_, nullptr)) done();
                   }),
      load_timer_(main, [this] { look_at_load(); }) {}

Result<std::unique_ptr<L7Proxy>> L7Proxy::create(io::Loop& main, std::vector<io::Loop*> workers,
                                                 L7ProxyOptions options) {
  if (workers.empty()) return fail(ErrorCode::kInvalidArgument, "an L7 proxy needs a worker");
  std::unique_ptr<L7Proxy> proxy(new L7Proxy(main, std::move(workers), std::move(options)));
  const int count = static_cast<int>(proxy->loops_.size());
  for (int i = 0; i < count; ++i) {
    L7WorkerOptions one;
    one.index = i;
    one.connector = proxy->options_.connector;
    one.max_requests = proxy->options_.max_requests;
    one.overload = proxy->overload_.get();
    one.seed = proxy->options_.seed;
    if (proxy->options_.telemetry != nullptr)
      one.telemetry = &proxy->options_.telemetry->worker(static_cast<size_t>(i));
    io::Loop& loop = *proxy->loops_[static_cast<size_t>(i)];
    proxy->sides_.push_back(std::make_shared<Side>(loop, std::move(one)));
    if (i > 0)
      proxy->sides_.back()->remote = std::make_unique<RemoteDialer>(loop, proxy->dialer_place_);
    proxy->make_datagrams(i);
  }
  Side& first = *proxy->sides_.front();
  L7Worker& l7 = first.worker->l7;
  first.health = std::make_unique<HealthChecker>(
      HealthCheckerOptions{l7.loop(), l7.connector(), l7.make_h1(), l7.make_h2(), 256, 0});
  ClusterManagerOptions manager{main, count, {}, {}, {}};
  manager.place = proxy->options_.place;
  manager.lookup = proxy->options_.lookup;
  manager.publish = [p = proxy.get()](ClusterUpdates updates) { p->publish(updates); };
  proxy->manager_ = std::make_unique<ClusterManager>(std::move(manager));
  return proxy;
}

L7Proxy::~L7Proxy() {
  *alive_ = false;
  stop();
}

void L7Proxy::each_side(const std::function<void(Side&)>& task) {
  for (auto& side : sides_)
    loops_[static_cast<size_t>(&side - sides_.data())]->post([side, task] {
      if (side->worker != nullptr) task(*side);
    });
}

// ---- Configuration.

std::shared_ptr<void> L7Proxy::retire() {
  struct Former {
    RouteTablesPtr tables;
    std::shared_ptr<const model::Config> config;
    void end() {
      const bool many =
          config != nullptr && config->clusters.size() + config->routes.size() > kManyObjects;
      tables.reset();
      config.reset();
      if (many) malloc_trim(0);
    }
  };
  // Whoever leaves it last: a worker, as a rule.
  const auto away = [&main = main_, alive = alive_](Former* last) {
    if (!*alive) return delete last;
    main.post([&main, former = std::unique_ptr<Former>(last)]() mutable {
      main.offload([former = std::move(former)]() { former->end(); }, [] {});
    });
  };
  return std::shared_ptr<Former>(new Former{tables_, config_}, away);
}

Result<> L7Proxy::apply(std::shared_ptr<const model::Config> config, RouteTablesPtr tables) {
  if (tables == nullptr) {
    EM_TRY(RouteTables built, RouteTables::build(*config, *tables_));
    tables = std::make_shared<RouteTables>(std::move(built));
  }
  struct Change {
    ListenerRuntimePtr runtime;
    bool opens = false;
    Opened opened;
  };
  std::map<std::string, Change> changes;
  for (const auto& [name, spec] : config->listeners) {
    Change change;
    const auto before = listeners_.find(name);
    const bool is_new = before == listeners_.end();
    EM_TRY(change.runtime,
           build_listener(spec, *tables, is_new ? nullptr : before->second.runtime.get(),
                          {options_.telemetry, &config->telemetry}));
    change.opens = is_new || !same_addresses(*before->second.runtime->spec, *spec);
    if (change.opens) {
      EM_TRY_VOID(open_sockets(*spec, &change.opened));
    }
    changes.emplace(name, std::move(change));
  }
  std::vector<std::shared_ptr<const model::Cluster>> clusters;
  for (const auto& [name, cluster] : config->clusters) clusters.push_back(cluster);
  for (const auto& [key, service] : services_) clusters.push_back(service.cluster);
  EM_TRY_VOID(manager_->apply(clusters));  // the last that can fail

  const std::shared_ptr<void> former = retire();
  tables_ = std::move(tables);
  config_ = std::move(config);
  overload_->set(config_->overload, loops_.size());
  if (config_->overload == model::Overload{})
    load_timer_.stop();
  else if (!load_timer_.active())
    load_timer_.start_repeating(std::chrono::seconds(1));
  std::set<std::string> gone;
  for (const auto& [name, listening] : listeners_)
    if (!changes.contains(name)) gone.insert(name);
  for (const std::string& name : gone) remove_listener(name);
  for (auto& [name, change] : changes) {
    Listening& listening = listeners_[name];
    if (listening.shared == nullptr)
      listening.shared =
          std::make_shared<ListenerShared>(name, static_cast<int>(loops_.size()), overload_);
    listening.runtime = change.runtime;
    if (change.opens) {
      listening.addrs = change.opened.addrs;
      listening.handles = std::move(change.opened.handles);
    }
    for (size_t i = 0; i < sides_.size(); ++i) {
      auto sockets = std::make_shared<std::vector<Socket>>();
      if (change.opens) *sockets = std::move(change.opened.sockets[i]);
      loops_[i]->post([side = sides_[i], name = name, shared = listening.shared, former,
                       runtime = change.runtime, opens = change.opens, sockets] {
        if (side->worker != nullptr) side->set_listener(name, shared, runtime, opens, *sockets);
      });
    }
  }
  return {};
}

void L7Proxy::Side::end() {
  look_timer.reset();
  health.reset();
  for (auto& [name, listener] : listeners) listener->close_all();
  draining.clear();
  listeners.clear();
  udp_by_index.clear();
  udp_listeners.clear();
  datagrams.reset();
  worker.reset();
}

size_t L7Proxy::Side::connections() const {
  size_t sum = 0;
  for (const auto& [name, listener] : listeners) sum += listener->connections();
  for (const auto& listener : draining) sum += listener->connections();
  return sum;
}

void L7Proxy::Side::count_captured() {
  captured = static_cast<size_t>(std::count_if(listeners.begin(), listeners.end(), [](auto& one) {
    return one.second->runtime_ptr()->spec->kind == model::Listener::Kind::kCaptured &&
           !one.first.starts_with("outbound|");
  }));
}

void L7Proxy::Side::set_listener(const std::string& name, std::shared_ptr<ListenerShared> shared,
                                 ListenerRuntimePtr runtime, bool opens,
                                 std::vector<Socket>& sockets) {
  const bool udp = runtime->spec->kind == model::Listener::Kind::kUdp;
  if (!udp) remove_udp_listener(name);
  if (udp) {
    if (auto other = listeners.find(name); other != listeners.end()) {
      other->second->drain();
      draining.push_back(std::move(other->second));
      listeners.erase(other);
    }
    set_udp_listener(*runtime->spec, opens, sockets);
    return;
  }
  auto& listener = listeners[name];
  if (listener == nullptr)
    listener = std::make_unique<WorkerListener>(*worker, std::move(shared), std::move(runtime));
  else
    listener->update(std::move(runtime));
  count_captured();
  if (!opens) return;
  listener->stop_accepting();
  for (Socket& socket : sockets)
    if (auto adopted = listener->adopt(std::move(socket.fd)); !adopted)
      EM_LOG(kError, "proxy", "listener {}: {}", name, adopted.error().message);
}

void L7Proxy::remove_listener(const std::string& name) {
  listeners_.erase(name);
  each_side([name](Side& side) {
    side.remove_udp_listener(name);
    const auto found = side.listeners.find(name);
    if (found == side.listeners.end()) return;
    found->second->drain();
    side.draining.push_back(std::move(found->second));
    side.listeners.erase(found);
    side.count_captured();
    std::erase_if(side.draining, [](const auto& listener) { return listener->connections() == 0; });
  });
}

void L7Proxy::publish(const ClusterUpdates& updates) {
  each_side([updates](Side& side) {
    side.worker->l7.clusters().apply(updates);
    if (side.health == nullptr) return;
    for (const ClusterUpdate& update : *updates) {
      if (update.set != nullptr)
        side.health->set(update.set);
      else
        side.health->remove(update.name);
    }
  });
}

void L7Proxy::set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot) {
  snapshot_ = snapshot;
  manager_->set_snapshot(snapshot);
  drop_services();
  if (options_.capture_services) each_side([snapshot](Side& side) { side.snapshot = snapshot; });
}

void L7Proxy::set_dialer(p2p::Dialer* dialer) {
  loops_.front()->post([side = sides_.front(), place = dialer_place_, dialer] {
    place->dialer = dialer;
    if (side->worker == nullptr) return;
    side->worker->l7.set_dialer(dialer);
    if (side->datagrams != nullptr) side->datagrams->dialer = dialer;
  });
  each_side([there = dialer != nullptr](Side& side) {
    if (side.remote != nullptr) side.worker->l7.set_dialer(there ? side.remote.get() : nullptr);
  });
}

// ---- The end.

void L7Proxy::drain(io::Task done, Drain how) {
  for (auto& [name, listening] : listeners_) listening.handles.clear();
  on_drained_ = std::move(done);
  busy_ = sides_.size();
  drain_timer_.start(options_.drain_timeout);
  auto one_done = [this, alive = alive_] {
    if (*alive && --busy_ == 0 && on_drained_) drain_timer_.start(Duration::zero());
  };
  each_side([this, alive = alive_, one_done, how, &main = main_](Side& side) {
    // Datagrams go to whoever reads them first: of two processes, to the one that stays.
    if (how == Drain::kPatient) {
      side.udp_by_index.clear();
      side.udp_listeners.clear();
    }
    for (auto& [name, listener] : side.listeners) listener->drain(how);
    side.wait_empty([&main, one_done] { main.post(one_done); });
  });
}

// Looks now and then: a drain lasts seconds, and the hot path need not know of it.
void L7Proxy::Side::wait_empty(io::Task done) {
  on_empty = std::move(done);
  auto look = [this] {
    if (connections() != 0 || !on_empty) return;
    look_timer->stop();
    auto task = std::exchange(on_empty, nullptr);
    task();
  };
  look_timer = std::make_unique<io::Timer>(worker->l7.loop(), look);
  look_timer->start_repeating(std::chrono::milliseconds(20));
}

void L7Proxy::stop() {
  if (std::exchange(stopped_, true)) return;
  on_drained_ = nullptr;
  drain_timer_.stop();
  for (size_t i = 0; i < sides_.size(); ++i) {
    if (loops_[i]->on_thread()) {  // it never ran, or it is the main loop itself (tests)
      sides_[i]->end();
      continue;
    }
    auto ended = std::make_shared<std::promise<void>>();
    loops_[i]->post([side = sides_[i], ended] {
      side->end();
      ended->set_value();
    });
    ended->get_future().wait();
  }
  // What the first worker carried for others ends on its loop, before who has the tunnels goes.
  if (sides_.size() < 2 || loops_.front()->on_thread()) return;
  auto carried = std::make_shared<std::promise<void>>();
  loops_.front()->post([carried, place = dialer_place_] {
    place->streams->close_all();
    carried->set_value();
  });
  carried->get_future().wait();
}

// ---- Reports.

std::vector<std::pair<std::string, SockAddr>> L7Proxy::listen_addrs() const {
  std::vector<std::pair<std::string, SockAddr>> out;
  for (const auto& [name, listening] : listeners_)
    for (const SockAddr& addr : listening.addrs) out.emplace_back(name, addr);
  return out;
}

}  // namespace edgemesh::proxy
