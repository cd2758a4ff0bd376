#include "p2p/netcheck.h"

#include <netdb.h>

#include <algorithm>
#include <cstring>

#include "core/io/tcp.h"
#include "core/io/udp.h"
#include "core/tls/x509.h"
#include "p2p/netlink_watch.h"
#include "p2p/stun_message.h"

namespace edgemesh::p2p {

namespace {

constexpr Duration kAgain = std::chrono::milliseconds(250);
constexpr size_t kMaxServers = 8;

// Blocking; on a pool thread. IPv4 first: that is where NATs are.
std::vector<SockAddr> resolve(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  std::vector<SockAddr> out;
  if (host.empty() || getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return out;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next)
    if (auto addr = SockAddr::from_sockaddr(entry->ai_addr, entry->ai_addrlen); addr)
      out.push_back({addr->ip, port});
  freeaddrinfo(list);
  std::stable_sort(out.begin(), out.end(), [](const SockAddr& a, const SockAddr& b) {
    return !a.ip.is_v6() && b.ip.is_v6();
  });
  return out;
}

StunId random_id() {
  StunId id;
  std::string bytes = tls::random_bytes(id.size());
  std::memcpy(id.data(), bytes.data(), id.size());
  return id;
}

class NetcheckImpl final : public Netcheck, private io::Stream::Handler {
 public:
  NetcheckImpl(io::Loop& loop, NetcheckOptions options, Done done)
      : loop_(loop),
        options_(std::move(options)),
        done_(std::move(done)),
        again_(loop, [this] { ask(); }),
        end_(loop, [this] { finish(); }) {}
  ~NetcheckImpl() override { *alive_ = false; }

  void begin() {
    report_.local = local_addresses();
    end_.start(options_.timeout + std::chrono::seconds(1));  // resolving may hang
    auto found = std::make_shared<std::vector<SockAddr>>();
    auto turn = std::make_shared<std::vector<SockAddr>>();
    loop_.offload(
        [options = options_, found, turn] {
          *turn = resolve(options.turn.host, options.turn.port);
          for (const auto& text : options.stun) {
            size_t colon = text.rfind(':');
            if (colon == std::string::npos) continue;
            auto more = resolve(text.substr(0, colon),
                                static_cast<uint16_t>(std::atoi(text.c_str() + colon + 1)));
            if (!more.empty()) found->push_back(more[0]);
          }
        },
        [this, alive = alive_, found, turn] {
          if (*alive) resolved(*turn, *found);
        });
  }

 private:
  struct Server {
    SockAddr addr;
    StunId id = random_id();
    TimePoint asked{};
    bool answered = false;
  };

  void resolved(const std::vector<SockAddr>& turn, const std::vector<SockAddr>& stun) {
    if (!turn.empty()) {
      relay_ = turn[0];
      servers_.push_back({turn[0]});
    }
    for (const SockAddr& addr : stun) {
      bool known = std::any_of(servers_.begin(), servers_.end(),
                               [&](const Server& s) { return s.addr == addr; });
      if (!known && servers_.size() < kMaxServers && addr.ip.is_v6() == servers_.front().addr.ip.is_v6())
        servers_.push_back({addr});
    }
    if (servers_.empty()) return finish();
    io::UdpSocket::Options options;
    options.mark = options_.mark;
    auto socket = io::UdpSocket::bind(
        loop_, {IpAddr::any(servers_[0].addr.ip.is_v6()), 0},
        [this](std::span<const uint8_t> data, size_t, const SockAddr& from) { on_answer(data, from); },
        options);
    if (socket) socket_ = std::move(*socket);
    if (relay_.port != 0) {
      io::ConnectOptions connect;
      connect.mark = options_.mark;
      connect.timeout = options_.timeout;
      auto tcp = io::TcpStream::connect(loop_, relay_, connect);
      if (tcp) {
        tcp_ = std::move(*tcp);
        tcp_->set_handler(this);
      }
    }
    end_.start(options_.timeout);
    ask();
  }

  void ask() {
    if (socket_ == nullptr) return;
    for (Server& server : servers_) {
      if (server.answered) continue;
      server.asked = loop_.clock().now();
      (void)socket_->send_to(stun_request(kStunBinding, server.id), server.addr);
    }
    if (relay_.port != 0 && !report_.relay_udp)
      (void)socket_->send_to(stun_request(kStunAllocate, allocate_id_), relay_);
    again_.start(kAgain);
  }

  void on_answer(std::span<const uint8_t> data, const SockAddr& from) {
    auto answer = parse_stun_answer(data);
    if (!answer) return;
    if (answer->method == kStunAllocate && answer->id == allocate_id_ && from == relay_) {
      report_.relay_udp = true;
    } else {
      for (Server& server : servers_) {
        if (server.id != answer->id || server.answered || !answer->mapped) continue;
        server.answered = true;
        report_.reflexive.push_back(*answer->mapped);
        if (server.addr == relay_)
          report_.rtt_us = std::chrono::duration_cast<std::chrono::microseconds>(
                               loop_.clock().now() - server.asked)
                               .count();
      }
    }
    finish_when_complete();
  }

  // TCP to the relay.
  void on_connected() override {
    auto request = stun_request(kStunAllocate, random_id());
    (void)tcp_->write(request);
  }
  void on_readable() override {
    uint8_t data[1024];
    auto r = tcp_->read(data);
    if (r.status == io::IoResult::kWouldBlock) return;
    // A TLS or HTTP server at that port would not answer so.
    if (r.status == io::IoResult::kOk && parse_stun_answer({data, r.n})) report_.relay_tcp = true;
    tcp_done_ = true;
    finish_when_complete();
  }
  void on_writable() override {}
  void on_error(const Error&) override {
    tcp_done_ = true;
    finish_when_complete();
  }

  void finish_when_complete() {
    bool all = std::all_of(servers_.begin(), servers_.end(), [](const Server& s) { return s.answered; });
    if (all && (relay_.port == 0 || (report_.relay_udp && tcp_done_))) end_.start(Duration::zero());
  }

  void finish() {
    if (!done_) return;
    again_.stop();
    report_.udp = report_.relay_udp || !report_.reflexive.empty();
    judge();
    auto done = std::exchange(done_, nullptr);
    done(std::move(report_));
  }

  void judge() {
    auto& mapped = report_.reflexive;
    bool own = !mapped.empty() && std::find(report_.local.begin(), report_.local.end(), mapped[0].ip) !=
                                      report_.local.end();
    if (!report_.udp) {
      report_.nat_kind = report_.relay_tcp ? "udp blocked" : "no answer";
      report_.advice = report_.relay_tcp
                           ? "tunnels are relayed over TCP; let UDP out to have direct ones"
                           : "neither UDP nor TCP reaches the relay: check its address and the firewall";
    } else if (own) {
      report_.nat_kind = "none";
      report_.advice = "this machine has a public address: tunnels are direct";
    } else if (mapped.size() < 2) {
      report_.nat_kind = "unknown";
      report_.advice = "behind NAT; a second STUN server would tell how it maps";
    } else if (std::all_of(mapped.begin(), mapped.end(),
                           [&](const SockAddr& m) { return m == mapped[0]; })) {
      report_.nat_kind = "endpoint independent";
      report_.advice = "tunnels are direct, but to peers behind symmetric NATs that filter by port";
    } else {
      report_.nat_kind = "symmetric";
      report_.advice = "tunnels are direct to open networks and relayed to other NATs";
    }
  }

  io::Loop& loop_;
  NetcheckOptions options_;
  Done done_;
  NetcheckReport report_;
  SockAddr relay_;  // port 0: none
  std::vector<Server> servers_;
  StunId allocate_id_ = random_id();
  std::unique_ptr<io::UdpSocket> socket_;
  std::unique_ptr<io::TcpStream> tcp_;
  bool tcp_done_ = false;
  io::Timer again_;
  io::Timer end_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<Netcheck> Netcheck::start(io::Loop& loop, NetcheckOptions options, Done done) {
  auto check = std::make_unique<NetcheckImpl>(loop, std::move(options), std::move(done));
  check->begin();
  return check;
}

}  // namespace edgemesh::p2p
