#include "proxy/route/route_table.h"

#include <algorithm>

#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

std::string_view RouteTable::split_domain(std::string_view domain, Kind* kind) {
  *kind = kExact;
  if (domain.starts_with('*')) {
    *kind = kSuffix;
    domain.remove_prefix(1);
  } else if (domain.ends_with('*')) {
    *kind = kPrefix;
    domain.remove_suffix(1);
  }
  return domain;
}

RouteTable::Shard& RouteTable::own_shard(size_t at, std::array<bool, kShards>& own) {
  if (!own[at]) {
    shards_[at] = shards_[at] ? std::make_shared<Shard>(*shards_[at]) : std::make_shared<Shard>();
    own[at] = true;
  }
  return *shards_[at];
}

const CompiledHost* RouteTable::find(Kind kind, std::string_view name) const {
  const uint64_t hash = hash64(name, kind);
  const auto& shard = shards_[hash % kShards];
  if (!shard) return nullptr;
  const auto [first, last] = shard->equal_range(hash);
  for (auto it = first; it != last; ++it) {
    Kind other;
    const std::string_view domain =
        split_domain(it->second.host->spec().domains[it->second.domain], &other);
    if (other == kind && domain == name) return it->second.host;
  }
  return nullptr;
}

Result<> RouteTable::index_host(const CompiledHost& host, std::array<bool, kShards>& own) {
  const auto& domains = host.spec().domains;
  for (uint32_t i = 0; i < domains.size(); ++i) {
    Kind kind;
    const std::string_view name = split_domain(domains[i], &kind);
    const bool twice = domains[i] == "*" ? any_ != nullptr : find(kind, name) != nullptr;
    if (twice)
      return fail(ErrorCode::kInvalidArgument, "routes {}: domain '{}' of host {} is there twice",
                  config_->name, domains[i], host.spec().name);
    if (domains[i] == "*") {
      any_ = &host;
      continue;
    }
    if (name.empty() || name.size() > kMaxDomain || name.find('*') != std::string_view::npos)
      return fail(ErrorCode::kInvalidArgument, "routes {}: domain '{}' of host {} is not allowed",
                  config_->name, domains[i], host.spec().name);
    const uint64_t hash = hash64(name, kind);
    own_shard(hash % kShards, own).emplace(hash, Item{&host, i});
    ++count_[kind][name.size()];
  }
  return {};
}

void RouteTable::forget_host(const CompiledHost& host, std::array<bool, kShards>& own) {
  for (const auto& domain : host.spec().domains) {
    if (domain == "*") {
      if (any_ == &host) any_ = nullptr;
      continue;
    }
    Kind kind;
    const std::string_view name = split_domain(domain, &kind);
    const uint64_t hash = hash64(name, kind);
    Shard& shard = own_shard(hash % kShards, own);
    const auto [first, last] = shard.equal_range(hash);
    for (auto it = first; it != last; ++it) {
      if (it->second.host != &host) continue;
      shard.erase(it);
      --count_[kind][name.size()];
      break;
    }
  }
}

void RouteTable::note_lengths() {
  for (int kind = 0; kind < 3; ++kind)
    for (size_t length = kMaxDomain; length > 0; --length)
      if (count_[kind][length] > 0) lengths_[kind].push_back(static_cast<uint8_t>(length));
}

Result<> RouteTable::take_hosts(const RouteTable* previous) {
  std::unordered_map<const model::VirtualHost*, CompiledHostPtr> gone;
  std::unordered_map<std::string_view, const CompiledHost*> gone_by_name;
  std::vector<const CompiledHost*> fresh;
  std::array<bool, kShards> own{};
  const auto& specs = config_->hosts;
  const auto same_at = [&](size_t i) {
    return previous != nullptr && i < previous->hosts_.size() && i < specs.size() &&
           &previous->hosts_[i]->spec() == specs[i].get();
  };
  if (previous != nullptr) {
    shards_ = previous->shards_;
    count_ = previous->count_;
    any_ = previous->any_;
    for (size_t i = 0; i < previous->hosts_.size(); ++i)
      if (!same_at(i)) gone.emplace(&previous->hosts_[i]->spec(), previous->hosts_[i]);
  }
  hosts_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (same_at(i)) {
      hosts_[i] = previous->hosts_[i];
    } else if (auto it = gone.find(specs[i].get()); it != gone.end()) {  // it moved
      hosts_[i] = it->second;
      gone.erase(it);
    }
  }
  for (const auto& [spec, host] : gone) {
    forget_host(*host, own);
    gone_by_name.emplace(spec->name, host.get());
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    if (hosts_[i]) continue;
    const auto old = gone_by_name.find(specs[i]->name);
    EM_TRY(hosts_[i],
           CompiledHost::make(specs[i], old == gone_by_name.end() ? nullptr : old->second));
    fresh.push_back(hosts_[i].get());
  }
  for (const CompiledHost* host : fresh) EM_TRY_VOID(index_host(*host, own));
  note_lengths();
  return {};
}

Result<std::shared_ptr<const RouteTable>> RouteTable::build(model::RouteConfigPtr config,
                                                            const RouteTable* previous) {
  auto table = std::make_shared<RouteTable>();
  table->config_ = std::move(config);
  EM_TRY(table->request_headers_, Mutations::make(table->config_->request_headers));
  EM_TRY(table->response_headers_, Mutations::make(table->config_->response_headers));
  EM_TRY_VOID(table->take_hosts(previous));
  return std::shared_ptr<const RouteTable>(std::move(table));
}

const CompiledHost* RouteTable::find_host(std::string_view authority) const {
  if (config_->ignore_port) authority = host_of(authority);
  char text[kMaxDomain + 1];
  if (hosts_.empty() || authority.empty() || authority.size() > kMaxDomain) return any_;
  std::transform(authority.begin(), authority.end(), text,
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const std::string_view name(text, authority.size());
  if (const CompiledHost* host = find(kExact, name)) return host;
  // A wildcard stands for one character at least.
  for (const uint8_t length : lengths_[kSuffix])
    if (length < name.size())
      if (const auto* host = find(kSuffix, name.substr(name.size() - length))) return host;
  for (const uint8_t length : lengths_[kPrefix])
    if (length < name.size())
      if (const auto* host = find(kPrefix, name.substr(0, length))) return host;
  return any_;
}

const RouteEntry* RouteTable::match(const Head& head, const Facts& facts) const {
  const CompiledHost* host = find_host(head.authority);
  return host == nullptr ? nullptr : host->match(head, facts);
}

namespace {
void apply_all(std::initializer_list<const Mutations*> list, Head* head, const LogFacts& facts) {
  for (const Mutations* mutations : list)
    if (mutations != nullptr) mutations->apply(head, facts);
}
}  // namespace

void RouteTable::apply_request(const RouteEntry& entry, Head* head, const LogFacts& facts) const {
  const Mutations* host = entry.host->request_headers();
  if (config_->most_specific_mutations_last)
    apply_all({request_headers_.get(), host, entry.request_headers.get()}, head, facts);
  else
    apply_all({entry.request_headers.get(), host, request_headers_.get()}, head, facts);
}

void RouteTable::apply_response(const RouteEntry& entry, Head* head, const LogFacts& facts) const {
  const Mutations* host = entry.host->response_headers();
  if (config_->most_specific_mutations_last)
    apply_all({response_headers_.get(), host, entry.response_headers.get()}, head, facts);
  else
    apply_all({entry.response_headers.get(), host, response_headers_.get()}, head, facts);
}

}  // namespace edgemesh::proxy
