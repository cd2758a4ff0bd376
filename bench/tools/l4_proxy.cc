// The agent's L4 proxy alone, without capture, discovery and tunnels: for side by side runs.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "bench/tools/net_util.h"
#include "core/base/log.h"
#include "core/io/loop.h"
#include "proxy/proxy.h"

namespace {
constexpr const char* kHelp =
    "l4_proxy --listen ADDR:PORT --to ADDR:PORT [options]\n"
    "  EdgeMesh's L4 proxy with one static listener.\n"
    "  --workers N            threads (1)\n"
    "  --congestion NAME      TCP_CONGESTION of both sides (cubic; '-' leaves the system's)\n"
    "  --max-connections N    of a worker (16384)\n"
    "  --access-log           one line a connection on stderr";

edgemesh::SockAddr address(const std::string& text) {
  auto parsed = edgemesh::SockAddr::parse(text);
  if (parsed) return *parsed;
  std::fprintf(stderr, "%s\n", parsed.error().message.c_str());
  std::exit(2);
}
}  // namespace

int main(int argc, char** argv) {
  using namespace edgemesh;
  auto args = bench::parse_args(argc, argv);
  if (args.contains("help") || !args.contains("listen") || !args.contains("to")) {
    std::puts(kHelp);
    return args.contains("help") ? 0 : 2;
  }
  signal(SIGPIPE, SIG_IGN);
  auto loop = io::Loop::create();
  if (!loop) return 1;
  proxy::ProxyOptions options;
  proxy::ListenerOptions listener;
  listener.listen = address(args["listen"]);
  listener.endpoints = {address(args["to"])};
  options.listeners = {listener};
  options.l4.access_log = args.contains("access-log");
  if (args.contains("workers")) options.workers = std::atoi(args["workers"].c_str());
  if (args.contains("congestion"))
    options.l4.local_congestion = args["congestion"] == "-" ? "" : args["congestion"];
  if (args.contains("max-connections"))
    options.l4.max_connections = static_cast<size_t>(std::atoi(args["max-connections"].c_str()));
  obs::Registry registry;
  auto proxy = proxy::Proxy::create(**loop, options, registry);
  if (!proxy) {
    std::fprintf(stderr, "%s\n", proxy.error().message.c_str());
    return 1;
  }
  auto stop = [&] { (*proxy)->drain([&] { (*loop)->stop(); }); };
  auto term = io::SignalWatch::start(**loop, SIGTERM, stop);
  auto interrupt = io::SignalWatch::start(**loop, SIGINT, stop);
  (*proxy)->start();
  (*loop)->run();
  auto totals = (*proxy)->totals();
  std::fprintf(stderr, "opened %llu, failed %llu, sent %llu, received %llu bytes\n",
               static_cast<unsigned long long>(totals.opened),
               static_cast<unsigned long long>(totals.failed),
               static_cast<unsigned long long>(totals.bytes_sent),
               static_cast<unsigned long long>(totals.bytes_received));
  return 0;
}
