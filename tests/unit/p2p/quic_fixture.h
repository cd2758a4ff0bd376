// Two QUIC endpoints on one loop, over loopback UDP or over a pair in memory that loses and reorders.
#pragma once

#include <gtest/gtest.h>

#include <list>
#include <random>

#include "p2p/quic_endpoint.h"
#include "tests/support/test_pki.h"

namespace edgemesh::p2p {

using namespace std::chrono_literals;  // NOLINT

inline tls::KeyAndCert node_cert(const test::TestPki& pki, const std::string& name, int64_t from = -60,
                                 int64_t to = 3600) {
  return pki.issue("system:node:" + name, {{tls::node_spiffe_id("edgemesh.local", name)}, {}, {}}, from,
                   to);
}

inline std::shared_ptr<const QuicIdentity> identity(const tls::KeyAndCert& id, const std::string& ca) {
  return test::TestPki::take(QuicIdentity::create(id.cert_pem, id.key_pem, ca, "edgemesh.local"));
}

// A datagram path in memory with its own delay, loss and reordering.
class MemoryPath final : public DatagramPath {
 public:
  MemoryPath(io::Loop& loop, uint32_t seed) : loop_(loop), random_(seed) {}
  void connect(MemoryPath& other) { other_ = &other; }
  size_t send(std::span<const uint8_t> train, size_t segment) override {
    size_t taken = train.size();
    if (cut) return taken;
    while (!train.empty()) {
      auto one = train.first(std::min(segment, train.size()));
      train = train.subspan(one.size());
      ++sent;
      if (one.size() > mtu) {
        ++too_large;
        continue;
      }
      if (random_() % 1000 < loss_per_mille) continue;
      auto late = random_() % 1000 < reorder_per_mille ? 3 * delay : Duration::zero();
      deliver(std::vector<uint8_t>(one.begin(), one.end()), delay + late);
    }
    return taken;
  }
  PathKind kind() const override { return PathKind::kPunched; }

  uint32_t loss_per_mille = 0;
  uint32_t reorder_per_mille = 0;
  Duration delay = 1ms;
  bool cut = false;
  uint64_t sent = 0;
  size_t mtu = 1500;  // of datagrams; larger ones vanish
  uint64_t too_large = 0;

 private:
  struct Packet {
    std::vector<uint8_t> data;
    std::unique_ptr<io::Timer> timer;
  };
  void deliver(std::vector<uint8_t> data, Duration after) {
    auto packet = in_flight_.emplace(in_flight_.end());
    packet->data = std::move(data);
    packet->timer = std::make_unique<io::Timer>(loop_, [this, packet] {
      Packet now = std::move(*packet);
      in_flight_.erase(packet);
      if (other_->receiver() != nullptr) other_->receiver()->on_datagrams(*other_, now.data, 0);
    });
    packet->timer->start(after);
  }
  std::list<Packet> in_flight_;
  io::Loop& loop_;
  std::mt19937 random_;
  MemoryPath* other_ = nullptr;
};

// Sends `total` bytes of a pattern, then ends; checks that what comes is a pattern too.
class Transfer final : public io::Stream::Handler {
 public:
  Transfer(std::unique_ptr<io::Stream> s, uint64_t total) : stream(std::move(s)), to_send(total) {
    stream->set_handler(this);
    if (total > 0) pump();
    if (total == 0) finish();
  }
  static uint8_t pattern(uint64_t i) { return static_cast<uint8_t>((i * 2654435761U) >> 13); }
  void pump() {
    static thread_local std::vector<uint8_t> block(64 * 1024);
    while (sent < to_send) {
      size_t n = std::min<uint64_t>(block.size(), to_send - sent);
      for (size_t i = 0; i < n; ++i) block[i] = pattern(sent + i);
      auto r = stream->write({block.data(), n});
      if (r.status != io::IoResult::kOk) return;
      sent += r.n;
    }
    finish();
  }
  void finish() {
    if (end_when_sent && !finished) stream->shutdown_write();
    finished = true;
  }
  void read_all() {
    static thread_local std::vector<uint8_t> block(64 * 1024);
    while (reading && stream != nullptr) {
      auto r = stream->read(block);
      if (r.status == io::IoResult::kEof) eof = true;
      if (r.status != io::IoResult::kOk) return;
      for (size_t i = 0; i < r.n; ++i)
        if (block[i] != pattern(received + i)) ++wrong;
      received += r.n;
    }
  }
  void on_connected() override { connected = true; }
  void on_readable() override { read_all(); }
  void on_writable() override { pump(); }
  void on_error(const Error& e) override {
    failed = true;
    error = e;
  }
  bool done(uint64_t expect) const { return eof && finished && received == expect; }

  std::unique_ptr<io::Stream> stream;
  uint64_t to_send, sent = 0, received = 0, wrong = 0;
  bool connected = false, eof = false, failed = false, finished = false;
  bool reading = true, end_when_sent = true;
  Error error;
};

// One node's side: an endpoint, and what the peer opened.
class Side final : public QuicEndpoint::Handler {
 public:
  Side(io::Loop& loop, std::shared_ptr<const QuicIdentity> id, std::string peer, QuicOptions o = {})
      : endpoint(loop, std::move(id), std::move(peer), *this, o) {}
  void on_tunnel_ready() override { ready = true; }
  void on_tunnel_connect(std::unique_ptr<IncomingConnect> connect) override {
    targets.push_back(connect->target());
    if (refuse != 0) return connect->reject(refuse, "not an endpoint");
    auto stream = connect->accept();
    if (stream == nullptr) return;
    accepted.push_back(std::make_unique<Transfer>(std::move(stream), answer_bytes));
    if (!read_incoming) accepted.back()->reading = false;
  }
  void on_tunnel_closed(const Error& e) override {
    closed = true;
    error = e;
  }
  void use(DatagramPath& path) {
    path.set_receiver(&endpoint);
    endpoint.use_path(&path);
  }

  QuicEndpoint endpoint;
  std::vector<std::unique_ptr<Transfer>> accepted;
  std::vector<SockAddr> targets;
  uint64_t answer_bytes = 0;
  int refuse = 0;
  bool read_incoming = true;
  bool ready = false, closed = false;
  Error error;
};

class QuicTest : public testing::Test {
 protected:
  QuicTest() : loop(test::TestPki::take(io::Loop::create())) {
    id_a = identity(node_cert(pki, "a"), pki.ca().cert_pem);
    id_b = identity(node_cert(pki, "b"), pki.ca().cert_pem);
  }
  void make_sides(QuicOptions o = {}) {
    a = std::make_unique<Side>(*loop, id_a, "b", o);
    b = std::make_unique<Side>(*loop, id_b, "a", o);
  }
  void over_udp() {
    udp_a = test::TestPki::take(UdpPath::bind(*loop, {IpAddr::loopback(), 0}));
    udp_b = test::TestPki::take(UdpPath::bind(*loop, {IpAddr::loopback(), 0}));
    udp_a->connect(udp_b->local_addr());
    udp_b->connect(udp_a->local_addr());
    a->use(*udp_a);
    b->use(*udp_b);
  }
  void over_memory() {
    mem_a = std::make_unique<MemoryPath>(*loop, 1);
    mem_b = std::make_unique<MemoryPath>(*loop, 2);
    mem_a->connect(*mem_b);
    mem_b->connect(*mem_a);
    a->use(*mem_a);
    b->use(*mem_b);
  }
  std::unique_ptr<Transfer> open(uint64_t bytes) {
    return std::make_unique<Transfer>(test::TestPki::take(a->endpoint.open(target)), bytes);
  }
  bool until(const std::function<bool()>& done, Duration limit = 20s) {
    return loop->run_until(done, limit);
  }

  test::TestPki pki;
  std::shared_ptr<const QuicIdentity> id_a, id_b;
  std::unique_ptr<io::Loop> loop;
  std::unique_ptr<UdpPath> udp_a, udp_b, second_a, second_b;
  std::unique_ptr<MemoryPath> mem_a, mem_b;
  std::unique_ptr<Side> a, b;
  SockAddr target{IpAddr::v4(0x0a000001), 8080};
};

}  // namespace edgemesh::p2p
