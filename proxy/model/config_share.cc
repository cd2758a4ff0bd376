// What two configurations have in common.
#include "proxy/model/config.h"

namespace edgemesh::proxy::model {

namespace {

template <class T>
bool equal(const std::shared_ptr<const T>& a, const std::shared_ptr<const T>& b) {
  return a == b || (a != nullptr && b != nullptr && *a == *b);
}

// Hosts are found by name: one may have been put in before them.
RouteConfigPtr shared(const RouteConfigPtr& fresh, const RouteConfigPtr& before) {
  std::map<std::string_view, const VirtualHostPtr*> known;
  for (const auto& host : before->hosts) known.emplace(host->name, &host);
  auto out = std::make_shared<RouteConfig>(*fresh);
  for (auto& host : out->hosts) {
    const auto it = known.find(host->name);
    if (it != known.end() && equal(host, *it->second)) host = *it->second;
  }
  if (*out == *before) return before;
  return out;
}

ListenerPtr shared(const ListenerPtr& fresh, const ListenerPtr& before) {
  std::map<std::string_view, const FilterChainPtr*> known;
  for (const auto& chain : before->chains) known.emplace(chain->name, &chain);
  auto out = std::make_shared<Listener>(*fresh);
  for (auto& chain : out->chains) {
    const auto it = known.find(chain->name);
    if (it != known.end() && equal(chain, *it->second)) chain = *it->second;
  }
  if (equal(out->default_chain, before->default_chain)) out->default_chain = before->default_chain;
  if (*out == *before) return before;
  return out;
}

ClusterPtr shared(const ClusterPtr& fresh, const ClusterPtr& before) {
  return equal(fresh, before) ? before : fresh;
}

template <class T>
void share(ByName<T>* fresh, const ByName<T>& before) {
  for (auto& [name, one] : *fresh)
    if (const auto it = before.find(name); it != before.end()) one = shared(one, it->second);
}

}  // namespace

std::shared_ptr<const Config> share_unchanged(std::shared_ptr<const Config> fresh,
                                              const Config& before) {
  auto out = std::make_shared<Config>(*fresh);
  share(&out->clusters, before.clusters);
  share(&out->routes, before.routes);
  share(&out->listeners, before.listeners);
  return out;
}

}  // namespace edgemesh::proxy::model
