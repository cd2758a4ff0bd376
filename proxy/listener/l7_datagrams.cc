// Listeners of datagrams: a socket a worker, the kernel brings a flow to the same one each time.
#include "core/base/log.h"
#include "proxy/listener/l7_side.h"
#include "proxy/udp/cluster_directory.h"
#include "proxy/udp/parcel_way.h"

namespace edgemesh::proxy {

void L7Proxy::make_datagrams(int worker) {
  const std::shared_ptr<Side>& side = sides_[static_cast<size_t>(worker)];
  UdpOptions options;
  options.node = options_.connector.node;
  options.mark = options_.connector.mark;
  options.capture_cidrs = options_.connector.marked;
  obs::Registry& metrics = options_.metrics != nullptr ? *options_.metrics : side->own_metrics;
  side->datagrams =
      std::make_unique<UdpContext>(side->worker->l7.loop(), std::move(options), metrics, worker);
  side->holds_datagrams = options_.inherited != nullptr && !options_.inherited->empty();
  if (worker == 0) return;  // it has the way to other nodes
  side->datagrams->hand_over =
      parcel_way(*loops_.front(), [first = std::weak_ptr(sides_.front())](const UdpParcel& parcel) {
        if (auto there = first.lock()) there->take_parcel(parcel);
      });
}

void L7Proxy::Side::take_parcel(const UdpParcel& parcel) {
  const auto found = udp_by_index.find(parcel.listener);
  if (found != udp_by_index.end()) found->second->deliver(parcel);
}

void L7Proxy::Side::set_udp_listener(const model::Listener& spec, bool opens,
                                     std::vector<Socket>& sockets) {
  if (!opens || datagrams == nullptr) return;
  std::vector<std::unique_ptr<UdpListener>> made;
  for (Socket& socket : sockets) {
    auto local = io::original_dst(socket.fd.get(), false);
    if (!local) continue;
    UdpListenOptions options = udp_options(spec);
    options.index = socket.index;
    options.queue = socket.queue;
    options.open_flows = socket.flows;
    auto listener =
        UdpListener::adopt(*datagrams, std::move(options),
                           std::make_unique<ClusterDirectory>(
                               worker->l7.clusters(), spec.udp_cluster, datagrams->options.node),
                           std::move(socket.fd), *local);
    if (listener) {
      if (holds_datagrams) (*listener)->pause();
      made.push_back(std::move(*listener));
    } else
      EM_LOG(kError, "proxy", "listener {}: {}", spec.name, listener.error().message);
  }
  remove_udp_listener(spec.name);
  for (const auto& listener : made) udp_by_index.emplace(listener->index(), listener.get());
  udp_listeners[spec.name] = std::move(made);
}

void L7Proxy::Side::remove_udp_listener(const std::string& name) {
  const auto found = udp_listeners.find(name);
  if (found == udp_listeners.end()) return;
  for (const auto& listener : found->second) udp_by_index.erase(listener->index());
  udp_listeners.erase(found);
}

void L7Proxy::give_flows(std::function<void(std::vector<HandedFlow>)> done) {
  struct Given {
    size_t missing = 0;
    std::vector<HandedFlow> flows;
    std::function<void(std::vector<HandedFlow>)> done;
  };
  auto given = std::make_shared<Given>(Given{sides_.size(), {}, std::move(done)});
  for (size_t i = 0; i < sides_.size(); ++i) {
    loops_[i]->post([alive = alive_, side = sides_[i], &main = main_, given] {
      auto flows = std::make_shared<std::vector<HandedFlow>>();
      side->holds_datagrams = true;
      for (auto& [name, listeners] : side->udp_listeners)
        for (auto& listener : listeners) listener->give_flows(flows.get());
      main.post([alive, given, flows] {
        for (HandedFlow& flow : *flows) given->flows.push_back(std::move(flow));
        if (--given->missing == 0 && *alive) given->done(std::move(given->flows));
      });
    });
  }
}

size_t L7Proxy::Side::take_flows(std::vector<HandedFlow>& flows) {
  std::map<std::pair<std::string, size_t>, UdpListener*> by_socket;
  for (auto& [name, made] : udp_listeners)
    for (auto& listener : made)
      by_socket.emplace(std::pair(listener->local_addr().to_string(), listener->queue()),
                        listener.get());
  size_t resumed = 0;
  for (HandedFlow& flow : flows) {
    const auto found = by_socket.find({flow.listener.to_string(), flow.queue});
    if (found != by_socket.end() && found->second->take_flow(std::move(flow))) ++resumed;
  }
  return resumed;
}

void L7Proxy::take_flows(std::vector<HandedFlow> flows) {
  // A socket's place says whose it is: as in open_address().
  std::vector<std::vector<HandedFlow>> parts(sides_.size());
  for (HandedFlow& flow : flows) parts[flow.queue % sides_.size()].push_back(std::move(flow));
  for (size_t i = 0; i < sides_.size(); ++i) {
    auto part = std::make_shared<std::vector<HandedFlow>>(std::move(parts[i]));
    loops_[i]->post([side = sides_[i], part] {
      side->holds_datagrams = false;
      const size_t resumed = part->empty() ? 0 : side->take_flows(*part);
      for (auto& [name, listeners] : side->udp_listeners)
        for (auto& listener : listeners) listener->resume();
      if (!part->empty())
        EM_LOG(kInfo, "proxy", "{} of {} flows of datagrams go on", resumed, part->size());
    });
  }
}

}  // namespace edgemesh::proxy
