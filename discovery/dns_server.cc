#include "discovery/dns_server.h"

#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <optional>

#include "core/base/log.h"
#include "core/io/udp.h"
#include "discovery/dns_forwarder.h"
#include "discovery/dns_tcp.h"
#include "discovery/dns_wire.h"
#include "discovery/dns_zone.h"

namespace edgemesh::discovery {

using dns::Parsed;
using dns::Query;
using dns::Writer;
using Section = dns::Writer::Section;

namespace {

constexpr size_t kMaxUdpQuery = 4096;
constexpr size_t kMaxDomain = 100;
constexpr int kPortTries = 16;
constexpr uint16_t kFirstMetaType = 249;  // TKEY, TSIG, IXFR, AXFR, MAILB, MAILA; ANY is 255

constexpr std::string_view kAnyHinfo("\x07" "RFC8482" "\x00", 9);  // two strings, the second empty

struct Metrics {
  explicit Metrics(obs::Registry& r)
      : udp(r.counter("edgemesh_dns_queries_total", "DNS queries received", {{"proto", "udp"}})),
        tcp(r.counter("edgemesh_dns_queries_total", "DNS queries received", {{"proto", "tcp"}})),
        dropped(r.counter("edgemesh_dns_dropped_total", "Datagrams that were no query")),
        cache_hits(r.counter("edgemesh_dns_cache_hits_total", "Answers from the cache")),
        forwarded(r.counter("edgemesh_dns_forwarded_total", "Queries that waited for an upstream")),
        upstream_failures(
            r.counter("edgemesh_dns_upstream_failures_total", "Questions no upstream answered")),
        waiting(r.gauge("edgemesh_dns_waiting", "Queries that wait for an upstream now")),
        connections(r.gauge("edgemesh_dns_tcp_connections", "Open DNS connections")) {
    static constexpr const char* kNames[] = {"noerror", "formerr", "servfail", "nxdomain",
                                             "notimp",  "refused", "other"};
    for (size_t i = 0; i < answers.size(); ++i)
      answers[i] = &r.counter("edgemesh_dns_answers_total", "DNS answers sent", {{"rcode", kNames[i]}});
  }
  void count(uint16_t rcode) { answers[std::min<size_t>(rcode, answers.size() - 1)]->add(); }

  obs::Counter &udp, &tcp, &dropped, &cache_hits, &forwarded, &upstream_failures;
  obs::Gauge &waiting, &connections;
  std::array<obs::Counter*, 7> answers{};
};

bool is_interface_address(const IpAddr& ip) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return false;
  bool found = false;
  for (auto* i = list; i != nullptr && !found; i = i->ifa_next) {
    if (i->ifa_addr == nullptr) continue;
    socklen_t size = i->ifa_addr->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    auto addr = SockAddr::from_sockaddr(i->ifa_addr, size);
    found = addr && addr->ip == ip;
  }
  freeifaddrs(list);
  return found;
}

// A question that came over one transport and is answered over the same.
struct Client {
  size_t socket = 0;  // UDP: index of the listener
  SockAddr from;
  std::shared_ptr<dns::TcpSession> session;  // TCP
};

}  // namespace

struct DnsServer::Impl {
  Impl(io::Loop& l, DnsOptions o, obs::Registry& registry);

  Result<> open(const dns::Name& domain);
  Result<> bind(const SockAddr& addr);
  Result<> bind_at(const SockAddr& addr);
  std::vector<SockAddr> without_self(const std::vector<SockAddr>& upstreams) const;

  void on_message(std::span<const uint8_t> message, const Client& client);
  // The answer where it is known now; nullopt: `fetch` is to be asked upstream first. `fetched` is
  // what came of that (null: nothing did).
  std::optional<std::span<const uint8_t>> answer(const Query& query, size_t limit,
                                                 std::optional<dns::Question>& fetch);
  std::span<const uint8_t> answer_any(const Query& query, Writer& out);
  std::span<const uint8_t> simple(const Query& query, size_t limit, uint16_t rcode);
  std::span<const uint8_t> finish(const Query& query, size_t limit, const dns::Question& fetched,
                                  const dns::Answer* answer);
  void wait(std::span<const uint8_t> message, const Query& query, const Client& client,
            const dns::Question& fetch);
  void send(const Client& client, std::span<const uint8_t> bytes);

  io::Loop& loop;
  DnsOptions options;
  Metrics metrics;
  std::optional<dns::Zone> zone;
  dns::Forwarder forwarder;
  dns::TcpServer tcp;
  std::vector<std::unique_ptr<io::UdpSocket>> udp;
  std::shared_ptr<const Snapshot> snapshot;
  std::array<uint8_t, dns::kMaxMessage> out;
};

namespace {

dns::Forwarder::Options forwarder_options(const DnsOptions& o) {
  dns::Forwarder::Options f;
  f.resolver.timeout = o.upstream_timeout;
  f.resolver.tries = o.upstream_tries;
  f.resolver.mark = o.mark;
  f.resolver.max_in_flight = o.max_in_flight;
  f.max_waiting = o.max_in_flight;
  f.cache_entries = o.cache_entries;
  f.cache_bytes = o.cache_bytes;
  f.ttl = {o.cache_max_ttl_s, o.cache_max_negative_ttl_s};
  return f;
}

}  // namespace

DnsServer::Impl::Impl(io::Loop& l, DnsOptions o, obs::Registry& registry)
    : loop(l),
      options(std::move(o)),
      metrics(registry),
      forwarder(l, forwarder_options(options)),
      tcp(l, {options.max_tcp_connections, options.tcp_idle_timeout},
          [this](std::span<const uint8_t> message, const std::shared_ptr<dns::TcpSession>& session) {
            metrics.tcp.add();
            metrics.connections.set(static_cast<int64_t>(tcp.connections()));
            on_message(message, {0, {}, session});
          }) {}

Result<> DnsServer::Impl::open(const dns::Name& domain) {
  for (const SockAddr& addr : options.listen) EM_TRY_VOID(bind(addr));
  std::vector<IpAddr> own;
  for (const auto& socket : udp)
    if (!socket->local_addr().ip.is_unspecified()) own.push_back(socket->local_addr().ip);
  zone.emplace(domain, options.ttl_s, std::move(own));
  zone->set_service_cidrs(options.service_cidrs);
  return forwarder.set_servers(without_self(options.upstreams));
}

Result<> DnsServer::Impl::bind(const SockAddr& addr) {
  if (addr.port != 0) return bind_at(addr);
  Result<> last;
  for (int i = 0; i < kPortTries; ++i) {
    last = bind_at(addr);
    if (last) break;  // else another program has TCP on the port that UDP got
  }
  return last;
}

Result<> DnsServer::Impl::bind_at(const SockAddr& addr) {
  size_t index = udp.size();
  io::UdpSocket::Options o;
  o.buffer_bytes = 1 << 20;  // a burst of look-ups waits here, not at the clients' timeouts
  EM_TRY(auto socket, io::UdpSocket::bind(
                          loop, addr,
                          [this, index](std::span<const uint8_t> data, size_t, const SockAddr& from) {
                            metrics.udp.add();
                            if (from.port == 0 || data.size() > kMaxUdpQuery)
                              metrics.dropped.add();
                            else
                              on_message(data, {index, from, nullptr});
                          },
                          o));
  EM_TRY_VOID(tcp.listen(socket->local_addr()));
  udp.push_back(std::move(socket));
  return {};
}

std::vector<SockAddr> DnsServer::Impl::without_self(const std::vector<SockAddr>& upstreams) const {
  auto is_self = [&](const SockAddr& upstream) {
    return std::any_of(udp.begin(), udp.end(), [&](const auto& socket) {
      const SockAddr own = socket->local_addr();
      if (own == upstream) return true;
      return own.port == upstream.port && own.ip.is_unspecified() &&
             (upstream.ip.is_loopback() || upstream.ip.is_unspecified() ||
              is_interface_address(upstream.ip));
    });
  };
  std::vector<SockAddr> out_list;
  for (const SockAddr& upstream : upstreams) {
    if (is_self(upstream))
      EM_LOG(kWarn, "dns", "upstream {} is this server itself: left out", upstream.to_string());
    else if (std::find(out_list.begin(), out_list.end(), upstream) == out_list.end())
      out_list.push_back(upstream);
  }
  return out_list;
}

void DnsServer::Impl::on_message(std::span<const uint8_t> message, const Client& client) {
  Query query;
  Parsed parsed = dns::parse_query(message, query);
  if (parsed == Parsed::kDrop) {
    metrics.dropped.add();
    if (client.session) client.session->close();
    return;
  }
  size_t limit = client.session ? dns::kMaxMessage : dns::udp_limit(query);
  if (parsed != Parsed::kQuery) {
    query.edns = false;
    return send(client, simple(query, limit, parsed == Parsed::kNotImp ? dns::kNotImp : dns::kFormErr));
  }
  std::optional<dns::Question> fetch;
  if (auto bytes = answer(query, limit, fetch)) return send(client, *bytes);
  wait(message, query, client, *fetch);
}

std::span<const uint8_t> DnsServer::Impl::simple(const Query& query, size_t limit, uint16_t rcode) {
  Writer writer(out, limit, query);
  writer.set_rcode(rcode);
  return writer.finish();
}

std::optional<std::span<const uint8_t>> DnsServer::Impl::answer(const Query& query, size_t limit,
                                                                std::optional<dns::Question>& fetch) {
  if (query.edns && query.edns_version != 0) return simple(query, limit, dns::kBadVers);
  if (query.klass != dns::kClassIn) return simple(query, limit, dns::kRefused);
  if (query.type >= kFirstMetaType && query.type < dns::kAny) return simple(query, limit, dns::kRefused);
  Writer writer(out, limit, query);
  if (query.type == dns::kAny) return answer_any(query, writer);
  dns::Name chase;
  auto outcome = zone->answer(query, snapshot.get(), writer, chase);
  if (outcome == dns::Zone::Outcome::kAnswered) return writer.finish();
  bool aliased = outcome == dns::Zone::Outcome::kChase;
  bool checking_disabled = (query.flags & dns::kFlagCd) != 0;
  fetch.emplace(aliased ? chase : query.name, query.type, query.dnssec_ok, checking_disabled);
  if (auto cached = forwarder.cached(*fetch)) {
    metrics.cache_hits.add();
    return finish(query, limit, *fetch, cached.get());
  }
  // Without "recursion desired" nothing is asked on the client's behalf.
  if (!query.wants_recursion()) return aliased ? writer.finish() : simple(query, limit, dns::kRefused);
  return std::nullopt;
}

// RFC 8482: one record that says nothing, in place of all there is; cheap, and of no use to reflect.
std::span<const uint8_t> DnsServer::Impl::answer_any(const Query& query, Writer& writer) {
  dns::Name chase;
  if (zone->answer(query, snapshot.get(), writer, chase) == dns::Zone::Outcome::kAnswered &&
      writer.rcode() != dns::kNoError)
    return writer.finish();
  Writer fresh(out, dns::kPlainUdp, query);
  fresh.text(Section::kAnswer, Writer::kQuestion, dns::kHinfo, options.ttl_s, kAnyHinfo);
  return fresh.finish();
}

std::span<const uint8_t> DnsServer::Impl::finish(const Query& query, size_t limit,
                                                 const dns::Question& fetched,
                                                 const dns::Answer* upstream) {
  if (upstream == nullptr || upstream->rcode() == dns::kServFail)
    return simple(query, limit, dns::kServFail);
  Writer writer(out, limit, query);
  dns::Name chase;
  switch (zone->answer(query, snapshot.get(), writer, chase)) {
    case dns::Zone::Outcome::kAnswered: return writer.finish();  // it became a name of ours meanwhile
    case dns::Zone::Outcome::kForward: return upstream->write(query, out, limit, loop.now());
    case dns::Zone::Outcome::kChase: break;
  }
  dns::Question wanted(chase, query.type, fetched.dnssec_ok(), fetched.checking_disabled());
  if (wanted.key() != fetched.key()) return simple(query, limit, dns::kServFail);  // changed meanwhile
  writer.set_rcode(upstream->rcode());
  dns::append_answers(*upstream, writer, loop.now());
  return writer.finish();
}

void DnsServer::Impl::wait(std::span<const uint8_t> message, const Query& query, const Client& client,
                           const dns::Question& fetch) {
  metrics.forwarded.add();
  size_t limit = client.session ? dns::kMaxMessage : dns::udp_limit(query);
  std::vector<uint8_t> copy(message.begin(), message.end());
  forwarder.ask(fetch, [this, copy = std::move(copy), client, fetch,
                        limit](std::shared_ptr<const dns::Answer> upstream) {
    Query again;
    if (dns::parse_query(copy, again) != Parsed::kQuery) return;
    if (!upstream || upstream->rcode() == dns::kServFail) metrics.upstream_failures.add();
    metrics.waiting.set(static_cast<int64_t>(forwarder.waiting()));
    send(client, finish(again, limit, fetch, upstream.get()));
  });
  metrics.waiting.set(static_cast<int64_t>(forwarder.waiting()));
}

void DnsServer::Impl::send(const Client& client, std::span<const uint8_t> bytes) {
  metrics.count(bytes[3] & 15);
  if (client.session) return client.session->answer(bytes);
  // A full socket or an unreachable client: it asks again by itself.
  if (auto sent = udp[client.socket]->send_to(bytes, client.from); !sent)
    EM_LOG(kDebug, "dns", "answer to {}: {}", client.from.to_string(), sent.error().message);
}

DnsServer::DnsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DnsServer::~DnsServer() = default;

Result<std::unique_ptr<DnsServer>> DnsServer::create(io::Loop& loop, DnsOptions options,
                                                     obs::Registry& metrics) {
  loop.assert_on_thread();
  auto domain = dns::Name::parse(options.cluster_domain);
  if (!domain || domain->size > kMaxDomain)
    return fail(ErrorCode::kInvalidArgument, "cluster domain '{}' is not a DNS name of at most {} bytes",
                options.cluster_domain, kMaxDomain);
  auto impl = std::make_unique<Impl>(loop, std::move(options), metrics);
  EM_TRY_VOID(impl->open(*domain));
  return std::unique_ptr<DnsServer>(new DnsServer(std::move(impl)));
}

void DnsServer::update(std::shared_ptr<const Snapshot> snapshot) {
  impl_->loop.assert_on_thread();
  impl_->snapshot = std::move(snapshot);
}

void DnsServer::set_upstreams(const std::vector<SockAddr>& upstreams) {
  impl_->loop.assert_on_thread();
  if (auto done = impl_->forwarder.set_servers(impl_->without_self(upstreams)); !done)
    EM_LOG(kError, "dns", "upstreams: {}", done.error().message);
}

void DnsServer::set_service_cidrs(std::vector<Cidr> cidrs) {
  impl_->loop.assert_on_thread();
  impl_->zone->set_service_cidrs(std::move(cidrs));
}

std::vector<SockAddr> DnsServer::local_addrs() const {
  std::vector<SockAddr> addrs;
  for (const auto& socket : impl_->udp) addrs.push_back(socket->local_addr());
  return addrs;
}

}  // namespace edgemesh::discovery
