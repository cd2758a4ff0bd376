// The routes of one host.
#include <algorithm>

#include "proxy/route/route_table.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kIndexFrom = 8;  // fewer routes are faster looked at one by one
}

size_t RouteEntry::pick_cluster(uint64_t random) const {
  const auto& all = forward()->clusters;
  if (all.size() < 2) return 0;
  uint64_t total = 0;
  for (const auto& cluster : all) total += cluster.weight;
  if (total == 0) return 0;
  uint64_t at = random % total;
  for (size_t i = 0; i < all.size(); ++i) {
    if (at < all[i].weight) return i;
    at -= all[i].weight;
  }
  return 0;
}

uint64_t CompiledHost::former_key(const model::Route& route) {
  return hash64(route.name) * 31 + hash64(route.match.path.path);
}

Result<> CompiledHost::add_route(const model::Route& route, const Former& former,
                                 const std::shared_ptr<const RetryRules>& retry) {
  RouteEntry entry;
  entry.route = &route;
  entry.host = this;
  EM_TRY(entry.matcher, RequestMatcher::make(route.match));
  EM_TRY(entry.request_headers, Mutations::make(route.request_headers));
  EM_TRY(entry.response_headers, Mutations::make(route.response_headers));
  EM_TRY(entry.rewriter, Rewriter::make(route.rewrite, route.match.path));
  if (const auto* redirect = std::get_if<model::Redirect>(&route.action)) {
    EM_TRY(entry.redirector, Redirector::make(*redirect, route.match.path));
  }
  entry.retry = retry;
  if (!(route.retry == nullptr)) {
    EM_TRY(entry.retry, RetryRules::make(route.retry));
  }
  const Policies* old = nullptr;
  if (const auto it = former.find(former_key(route)); it != former.end())
    for (const RouteEntry* other : it->second)
      if (other->route->name == route.name && other->route->match == route.match) {
        old = other->policies.get();
        if (auto note = other->note.share()) entry.note.set(std::move(note));
      }
  EM_TRY(entry.policies, Policies::make(route.policies, spec_->policies, old));
  if (const auto* forward = entry.forward()) {
    const bool any = std::any_of(
        forward->clusters.begin(), forward->clusters.end(),
        [](const auto& c) { return c.request_headers.get() || c.response_headers.get(); });
    for (const auto& cluster : forward->clusters) {
      if (!any) break;
      auto& out = entry.clusters.emplace_back();
      if (cluster.request_headers.get()) {
        EM_TRY(out.request, Mutations::make(*cluster.request_headers));
      }
      if (cluster.response_headers.get()) {
        EM_TRY(out.response, Mutations::make(*cluster.response_headers));
      }
    }
  }
  routes_.push_back(std::move(entry));
  return {};
}

Result<CompiledHostPtr> CompiledHost::make(model::VirtualHostPtr spec,
                                           const CompiledHost* previous) {
  auto out = std::make_shared<CompiledHost>();
  out->spec_ = std::move(spec);
  const model::VirtualHost& host = *out->spec_;
  EM_TRY(out->request_headers_, Mutations::make(host.request_headers));
  EM_TRY(out->response_headers_, Mutations::make(host.response_headers));
  std::shared_ptr<const RetryRules> retry;
  if (!(host.retry == nullptr)) {
    EM_TRY(retry, RetryRules::make(host.retry));
  }
  out->routes_.reserve(host.routes.size());
  Former former;
  if (previous != nullptr)
    for (const RouteEntry& entry : previous->routes_)
      former[former_key(*entry.route)].push_back(&entry);
  for (const model::Route& route : host.routes)
    if (auto added = out->add_route(route, former, retry); !added)
      return fail(std::move(added).error().with_context(
          fmt::format("host {}, route {}", host.name, route.name)));
  if (out->routes_.size() >= kIndexFrom) out->build_index();
  return CompiledHostPtr(std::move(out));
}

void CompiledHost::build_index() {
  for (uint32_t i = 0; i < routes_.size(); ++i) {
    const model::PathMatch& path = routes_[i].route->match.path;
    const bool by_text = path.kind == model::PathMatch::Kind::kExact ||
                         path.kind == model::PathMatch::Kind::kPrefix ||
                         path.kind == model::PathMatch::Kind::kSegmentPrefix;
    if (!by_text || path.ignore_case || path.path.empty()) {
      other_.push_back(i);
      continue;
    }
    by_prefix_[hash64(path.path)].push_back(i);
    lengths_.push_back(static_cast<uint32_t>(path.path.size()));
  }
  std::sort(lengths_.begin(), lengths_.end());
  lengths_.erase(std::unique(lengths_.begin(), lengths_.end()), lengths_.end());
}

const RouteEntry* CompiledHost::match(const Head& head, const Facts& facts) const {
  size_t best = routes_.size();
  // The first of the list that matches, when it is before the best one so far.
  const auto try_list = [&](const auto& list) {
    for (const uint32_t i : list) {
      if (i >= best) return;
      if (routes_[i].matcher.matches(head, facts)) {
        best = i;
        return;
      }
    }
  };
  if (by_prefix_.empty() && other_.empty()) {
    for (const RouteEntry& entry : routes_)
      if (entry.matcher.matches(head, facts)) return &entry;
    return nullptr;
  }
  const std::string_view path = path_of(head.path);
  for (const uint32_t length : lengths_) {
    if (length > path.size()) break;
    const auto it = by_prefix_.find(hash64(path.substr(0, length)));
    if (it != by_prefix_.end()) try_list(it->second);
  }
  try_list(other_);
  return best == routes_.size() ? nullptr : &routes_[best];
}

}  // namespace edgemesh::proxy
