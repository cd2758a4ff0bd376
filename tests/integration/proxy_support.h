// Parts for the proxy's tests: a worker's context on the test's loop, servers and clients on the
// same loop, a tunnel made of memory.
#pragma once

#include <dirent.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/tcp.h"
#include "discovery/registry.h"
#include "proxy/inbound.h"
#include "proxy/l4_connection.h"

namespace edgemesh::proxy::testing_parts {

inline SockAddr loopback() {
  return {IpAddr::loopback(), 0};
}
inline SockAddr addr(std::string_view text) {
  return *SockAddr::parse(text);
}

inline size_t open_descriptors() {
  size_t n = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) ++n;
  closedir(dir);
  return n;
}

// Byte `at` of an endless pattern without short periods.
inline uint8_t pattern(uint64_t at) {
  uint64_t x = at * 0x9e3779b97f4a7c15ULL;
  return static_cast<uint8_t>((x >> 56) ^ (at >> 16));
}

struct TestEndpoint {
  SockAddr addr;
  std::string node = "here";
};

// One service default/svc on vip with these endpoints.
inline std::shared_ptr<const discovery::Snapshot> make_snapshot(
    io::Loop& loop, const SockAddr& vip, const std::vector<TestEndpoint>& endpoints,
    const std::string& port_name = "main") {
  discovery::Registry registry(loop);
  kube::Service service;
  service.ns = "default";
  service.name = "svc";
  service.cluster_ip = vip.ip.to_string();
  service.cluster_ips = {service.cluster_ip};
  kube::ServicePort port;
  port.name = port_name;
  port.port = vip.port;
  service.ports = {port};
  registry.upsert_service(service);
  int number = 0;
  for (const TestEndpoint& endpoint : endpoints) {
    kube::EndpointSlice slice;
    slice.ns = "default";
    slice.name = "svc-" + std::to_string(number++);
    slice.service_name = "svc";
    kube::SliceEndpoint one;
    one.addresses = {endpoint.addr.ip.to_string()};
    one.node_name = endpoint.node;
    slice.endpoints = {one};
    kube::EndpointSlice::Port target;
    target.name = port_name;
    target.port = endpoint.addr.port;
    slice.ports = {target};
    registry.upsert_slice(slice);
  }
  return registry.snapshot();
}

// One end of a connection in a test: sends a pattern, checks that it receives one.
class Peer : public io::Stream::Handler {
 public:
  explicit Peer(std::unique_ptr<io::Stream> stream) : stream_(std::move(stream)) {
    stream_->set_handler(this);
  }
  // Sends `n` bytes of the pattern (after what was sent before), as fast as they are taken.
  void send(uint64_t n, bool then_end = false) {
    to_send_ += n;
    end_after_ = then_end;
    pump_out();
  }
  void send_text(std::string_view bytes) { stream_->write(io::as_bytes(bytes)); }
  void end() { stream_->shutdown_write(); }
  void close() { stream_.reset(); }
  // Bytes taken at each step(), 0: as they come.
  void read_slowly(size_t bytes) { slow_ = bytes; }
  void step() {
    if (stream_ && slow_ > 0) read_some(slow_);
  }

  std::function<void(Peer&)> on_data;  // after each batch
  std::function<void(Peer&)> on_eof;
  uint64_t received = 0;
  uint64_t sent = 0;
  bool intact = true;  // what was received is the pattern
  bool check_pattern = false;
  std::string text;  // the first 64 KiB received
  bool eof = false;
  bool failed = false;
  bool connected = false;
  Error error;

  void on_connected() override { connected = true; }
  void on_readable() override {
    if (slow_ > 0) return;
    while (stream_ && read_some(256 * 1024)) {
    }
  }
  void on_writable() override { pump_out(); }
  void on_error(const Error& e) override {
    failed = true;
    error = e;
  }

 private:
  bool read_some(size_t limit) {
    static std::vector<uint8_t> buffer(256 * 1024);
    auto got = stream_->read({buffer.data(), std::min(limit, buffer.size())});
    if (got.status == io::IoResult::kEof && !eof) {
      eof = true;
      if (on_eof) on_eof(*this);
    }
    if (got.status != io::IoResult::kOk) return false;
    for (size_t i = 0; check_pattern && i < got.n; ++i)
      if (buffer[i] != pattern(received + i)) intact = false;
    if (text.size() < 65536) text.append(reinterpret_cast<char*>(buffer.data()), got.n);  // NOLINT
    received += got.n;
    if (on_data) on_data(*this);
    return stream_ != nullptr;
  }
  void pump_out() {
    static std::vector<uint8_t> chunk(256 * 1024);
    while (stream_ && sent < to_send_) {
      size_t n = static_cast<size_t>(std::min<uint64_t>(chunk.size(), to_send_ - sent));
      for (size_t i = 0; i < n; ++i) chunk[i] = pattern(sent + i);
      auto written = stream_->write({chunk.data(), n});
      if (written.status != io::IoResult::kOk) return;
      sent += written.n;
    }
    if (stream_ && sent == to_send_ && end_after_) {
      end_after_ = false;
      stream_->shutdown_write();
    }
  }

  std::unique_ptr<io::Stream> stream_;
  uint64_t to_send_ = 0;
  bool end_after_ = false;
  size_t slow_ = 0;
};

// Accepts connections and prepares each as the test says.
class Server {
 public:
  Server(io::Loop& loop, std::function<void(Peer&)> prepare) : prepare_(std::move(prepare)) {
    auto listener =
        io::TcpListener::listen(loop, loopback(), [this, &loop](io::Fd fd, const SockAddr&) {
          auto stream = io::TcpStream::adopt(loop, std::move(fd));
          peers.push_back(std::make_unique<Peer>(std::move(*stream)));
          if (prepare_) prepare_(*peers.back());
        });
    EXPECT_TRUE(listener);
    listener_ = std::move(*listener);
  }
  SockAddr address() const { return listener_->local_addr(); }
  std::vector<std::unique_ptr<Peer>> peers;

  static void echo(Peer& peer) {
    peer.on_data = [](Peer& p) {
      p.send_text(p.text);
      p.text.clear();
    };
    peer.on_eof = [](Peer& p) { p.end(); };
  }

 private:
  std::function<void(Peer&)> prepare_;
  std::unique_ptr<io::TcpListener> listener_;
};

// A stream whose other end is the test.
class TunnelStream final : public io::Stream {
 public:
  struct State {
    std::string written;   // by the user of the stream
    std::string incoming;  // to be read by it
    bool eof = false, write_ended = false, destroyed = false, waiting = true;
    bool left = true;  // the open went out; then only refuse() is certain
    size_t write_limit = 1 << 20;
    io::Stream::Handler* handler = nullptr;

    void connect() { handler->on_connected(); }
    void feed(std::string_view text) {
      incoming += text;
      wake();
    }
    void end() {
      eof = true;
      wake();
    }
    // The tunnel broke.
    void fail(const Error& error) { handler->on_error(error); }
    // The far agent answered, and not with 200.
    void refuse(const Error& error) {
      left = false;
      handler->on_error(error);
    }
    void wake() {
      if (std::exchange(waiting, false) && handler != nullptr) handler->on_readable();
    }
  };
  explicit TunnelStream(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ~TunnelStream() override {
    state_->destroyed = true;
    state_->handler = nullptr;
  }
  void set_handler(Handler* handler) override { state_->handler = handler; }
  io::IoResult read(std::span<uint8_t> into) override {
    if (!state_->incoming.empty()) {
      size_t n = std::min(into.size(), state_->incoming.size());
      std::copy_n(state_->incoming.begin(), n, into.begin());
      state_->incoming.erase(0, n);
      return {io::IoResult::kOk, 0, n};
    }
    if (state_->eof) return io::kEof;
    state_->waiting = true;
    return io::kWouldBlock;
  }
  io::IoResult write(std::span<const uint8_t> data) override {
    size_t n = std::min(data.size(), state_->write_limit - state_->written.size());
    if (n == 0) return io::kWouldBlock;
    state_->written += io::as_text(data.first(n));
    return {io::IoResult::kOk, 0, n};
  }
  void shutdown_write() override { state_->write_ended = true; }
  void reset() override {}
  bool nothing_delivered() const override { return !state_->left; }

 private:
  std::shared_ptr<State> state_;
};

class FakeDialer final : public p2p::Dialer {
 public:
  Result<std::unique_ptr<io::Stream>> open(const std::string& node,
                                           const SockAddr& target) override {
    opened.emplace_back(node, target);
    if (refuse) return fail(ErrorCode::kUnavailable, "no path to node {}", node);
    streams.push_back(std::make_shared<TunnelStream::State>());
    return std::unique_ptr<io::Stream>(std::make_unique<TunnelStream>(streams.back()));
  }
  p2p::PathKind path_kind(const std::string&) const override { return p2p::PathKind::kPunched; }

  std::vector<std::pair<std::string, SockAddr>> opened;
  std::vector<std::shared_ptr<TunnelStream::State>> streams;
  bool refuse = false;
};

class ProxyTest : public ::testing::Test {
 protected:
  explicit ProxyTest(Clock& clock = system_clock()) : loop(std::move(*io::Loop::create(clock))) {
    options.node = "here";
    options.access_log = false;
  }
  ~ProxyTest() override {
    listener.reset();
    clients.clear();
    if (context) {
      context->abort_all();
      loop->run_once();
    }
  }

  void serve(const std::vector<TestEndpoint>& endpoints) {
    context = std::make_unique<WorkerContext>(*loop, options, discovery::Picker(options.node, ""),
                                              registry, 0);
    context->dialer = dialer;
    context->snapshot = make_snapshot(*loop, vip, endpoints);
    auto made = io::TcpListener::listen(*loop, loopback(), [this](io::Fd fd, const SockAddr& peer) {
      L4Connection::accept(*context, std::move(fd), peer, destination, nullptr);
    });
    ASSERT_TRUE(made);
    listener = std::move(*made);
  }
  Peer& client() {
    auto stream = io::TcpStream::connect(*loop, listener->local_addr());
    EXPECT_TRUE(stream);
    clients.push_back(std::make_unique<Peer>(std::move(*stream)));
    return *clients.back();
  }
  bool wait(const std::function<bool()>& done, Duration limit = std::chrono::seconds(20)) {
    return loop->run_until(done, limit);
  }
  uint64_t ended(EndReason reason) {
    return context->metrics.ended[static_cast<size_t>(reason)]->value();
  }

  std::unique_ptr<io::Loop> loop;
  obs::Registry registry;
  L4Options options;
  p2p::Dialer* dialer = nullptr;
  SockAddr vip = addr("10.96.0.10:80");
  SockAddr destination = vip;
  std::unique_ptr<WorkerContext> context;
  std::unique_ptr<io::TcpListener> listener;
  std::vector<std::unique_ptr<Peer>> clients;
};

}  // namespace edgemesh::proxy::testing_parts
