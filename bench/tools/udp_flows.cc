// Many flows and many datagrams through a UdpListener, over loopback, in one process of three
// threads: clients, the listener, an echo server. Shows the rate, and that nothing is left behind:
// descriptors and memory are compared after a warm-up and after the end. Exit code 1 when there is.
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "bench/tools/net_util.h"
#include "core/io/loop.h"
#include "proxy/udp/udp_listener.h"

namespace {

using namespace edgemesh;
using proxy::Datagram;

constexpr const char* kHelp =
    "udp_flows [options]\n"
    "  --flows N       client addresses and destinations (10000)\n"
    "  --datagrams N   in all; each is answered (10000000)\n"
    "  --size N        bytes of each (64)\n"
    "  --slack KIB     growth of memory that is no leak (2048)";
constexpr size_t kDestinations = 100;  // 127.1.0.1 and up: each is a service of its own
constexpr Duration kIdle = std::chrono::seconds(3);

size_t descriptors() {
  size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    n += entry.exists();
  return n;
}

size_t memory_kib() {
  malloc_trim(0);
  std::ifstream in("/proc/self/statm");
  size_t pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * static_cast<size_t>(getpagesize()) / 1024;
}

io::Fd bound(const SockAddr& addr, SockAddr* local) {
  proxy::DatagramSocketOptions options;
  options.receive_bytes = 8 << 20;
  auto fd = proxy::open_datagram_socket(false, options);
  auto at = fd ? proxy::bind_datagram_socket(fd->get(), addr) : Result<SockAddr>(fail(fd.error()));
  if (!at) {
    std::fprintf(stderr, "%s\n", at.error().message.c_str());
    std::exit(2);
  }
  *local = *at;
  return std::move(*fd);
}

// Sends back what comes, until told to stop.
void echo(int fd, const std::atomic<bool>& stop) {
  proxy::DatagramBatch batch;
  pollfd waiting{fd, POLLIN, 0};
  while (!stop) {
    if (poll(&waiting, 1, 100) <= 0) continue;
    auto got = batch.receive(fd, true);
    for (size_t i = 0; i < got.n; ++i) {
      const SockAddr to = batch.ends(i).from;
      proxy::send_datagrams(fd, {&batch.at(i), 1}, &to);
    }
  }
}

class Clients {
 public:
  Clients(size_t flows, size_t size, uint16_t port) : data_(size, 'x') {
    const size_t sockets = (flows + kDestinations - 1) / kDestinations;
    for (size_t i = 0; i < sockets; ++i) {
      SockAddr local;
      sockets_.push_back(bound({IpAddr::loopback(), 0}, &local));
      waiting_.push_back({sockets_.back().get(), POLLIN, 0});
    }
    for (size_t i = 0; i < kDestinations; ++i)
      to_.push_back({IpAddr::v4(0x7f010001 + static_cast<uint32_t>(i)), port});
  }

  // One datagram on each of `flows` flows; each answer is waited for. Returns how many came.
  size_t round(size_t flows) {
    size_t answers = 0;
    for (size_t at = 0; at < flows; at += kWindow) {
      const size_t n = std::min(kWindow, flows - at);
      for (size_t i = at; i < at + n; ++i) {
        Datagram item{data_};
        proxy::send_datagrams(sockets_[i / kDestinations].get(), {&item, 1},
                              &to_[i % kDestinations]);
      }
      answers += collect(n);
    }
    return answers;
  }

 private:
  static constexpr size_t kWindow = 500;  // on their way at a time

  size_t collect(size_t wanted) {
    size_t got = 0;
    while (got < wanted && poll(waiting_.data(), waiting_.size(), 500) > 0)
      for (const pollfd& ready : waiting_)
        while (ready.revents != 0) {
          auto received = batch_.receive(ready.fd, false);
          for (size_t i = 0; i < received.n; ++i)
            if (batch_.at(i).data.size() == data_.size()) ++got;
          if (received.n < proxy::DatagramBatch::kMax) break;
        }
    return got;
  }

  std::vector<uint8_t> data_;
  std::vector<io::Fd> sockets_;
  std::vector<pollfd> waiting_;
  std::vector<SockAddr> to_;
  proxy::DatagramBatch batch_;
};

std::shared_ptr<const discovery::ServiceEntry> service(const SockAddr& endpoint) {
  auto entry = std::make_shared<discovery::ServiceEntry>();
  entry->ns = "bench";
  entry->name = "echo";
  discovery::Port& port = entry->ports.emplace_back();
  port.protocol = "UDP";
  port.endpoints.emplace_back().addr = endpoint;
  return entry;
}

// The listener on a thread of its own.
class Served {
 public:
  Served(const SockAddr& endpoint, size_t flows) : loop_(std::move(*io::Loop::create())) {
    proxy::UdpOptions options;
    options.access_log = false;
    context_ = std::make_unique<proxy::UdpContext>(*loop_, options, registry_, 0);
    proxy::UdpListenOptions listen;
    listen.listen = {IpAddr(), 0};
    listen.idle_timeout = kIdle;
    listen.max_flows = flows;
    listener_ = std::move(*proxy::UdpListener::listen(
        *context_, listen,
        std::make_unique<proxy::ServiceDirectory>("", "", none_, service(endpoint))));
    thread_ = std::thread([this] { loop_->run(); });
  }
  ~Served() {
    loop_->stop();
    thread_.join();
    listener_.reset();
  }
  uint16_t port() const { return listener_->local_addr().port; }
  int64_t active() const { return context_->metrics.active.value(); }
  uint64_t dropped() const {
    uint64_t sum = 0;
    for (const auto* counter : context_->metrics.dropped) sum += counter->value();
    return sum;
  }

 private:
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::shared_ptr<const discovery::Snapshot> none_;
  std::unique_ptr<proxy::UdpContext> context_;
  std::unique_ptr<proxy::UdpListener> listener_;
  std::thread thread_;
};

// Until the flows have ended, which a timer of the listener sees to.
bool wait_idle(const Served& served) {
  for (int i = 0; i < 200 && served.active() > 0; ++i) poll(nullptr, 0, 100);
  return served.active() == 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto args = bench::parse_args(argc, argv);
  if (args.contains("help")) {
    std::puts(kHelp);
    return 0;
  }
  auto number = [&](const char* name, size_t otherwise) {
    return args.contains(name) ? static_cast<size_t>(std::atoll(args[name].c_str())) : otherwise;
  };
  const size_t flows = number("flows", 10'000), total = number("datagrams", 10'000'000);
  const size_t slack = number("slack", 2048);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);

  SockAddr endpoint;
  io::Fd server = bound({IpAddr::loopback(), 0}, &endpoint);
  std::atomic<bool> stop{false};
  std::thread echoes([&] { echo(server.get(), stop); });
  int result = 0;
  {
    Served served(endpoint, flows);
    Clients clients(flows, number("size", 64), served.port());
    clients.round(flows);
    clients.round(flows);
    const auto most = static_cast<size_t>(served.active());
    const size_t with_flows = memory_kib();
    bool idle = wait_idle(served);
    const size_t fds_before = descriptors(), memory_before = memory_kib();

    const auto start = std::chrono::steady_clock::now();
    size_t sent = 0, answered = 0;
    while (sent < total) {
      answered += clients.round(flows);
      sent += flows;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    idle = wait_idle(served) && idle;
    const size_t fds_after = descriptors(), memory_after = memory_kib();
    std::printf(
        "flows=%zu of %zu datagrams=%zu answered=%zu lost=%zu dropped=%llu seconds=%.1f "
        "round_trips_per_second=%.0f\n",
        most, flows, sent, answered, sent - answered,
        static_cast<unsigned long long>(served.dropped()), seconds,
        static_cast<double>(answered) / seconds);
    std::printf(
        "memory_kib: with the flows %zu, idle before %zu, idle after %zu; descriptors: %zu, %zu\n",
        with_flows, memory_before, memory_after, fds_before, fds_after);
    const bool good = idle && most == flows && answered * 1000 >= sent * 999 &&
                      fds_after == fds_before && memory_after <= memory_before + slack;
    std::puts(good ? "nothing is left behind" : "FAILED");
    result = good ? 0 : 1;
  }
  stop = true;
  echoes.join();
  return result;
}
