// Capture and the L4 proxy with made-up services: for capture tests and the connect table.
#include <signal.h>

#include <chrono>

#include "bench/tools/net_util.h"
#include "core/base/log.h"
#include "core/io/loop.h"
#include "discovery/registry.h"
#include "proxy/capture.h"
#include "proxy/proxy.h"

namespace {

constexpr const char* kHelp =
    "l4_capture --cidr CIDR[,CIDR] --endpoint ADDR:PORT [options]      (needs root)\n"
    "  Captures TCP to the CIDRs and proxies services to one endpoint. Service i has the address\n"
    "  base + 1 + i of the first CIDR (and of each other one), port 80.\n"
    "  --services N     (1)             --mode auto|tproxy|redirect   (auto)\n"
    "  --dns ADDR       interface address to make       --workers N   (1)\n"
    "  --access-log     one line a connection on stderr\n"
    "  --tproxy-port P (15001)          --redirect-port P (15002)\n"
    "Prints {\"ready\":true,\"mode\",\"services\",\"capture_ms\",\"snapshot_ms\"} on stdout when "
    "it captures; "
    "SIGTERM\nremoves the rules and ends.";

using namespace edgemesh;

[[noreturn]] void stop_with(const std::string& message) {
  std::fprintf(stderr, "l4_capture: %s\n", message.c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) stop_with(result.error().message);
  return std::move(*result);
}

IpAddr nth_address(const Cidr& cidr, uint32_t n) {
  if (!cidr.base.is_v6()) return IpAddr::v4(cidr.base.v4_host_order() + n);
  uint8_t bytes[16];
  std::memcpy(bytes, cidr.base.bytes(), 16);
  for (int i = 15; i >= 12; --i, n >>= 8) bytes[i] = static_cast<uint8_t>(bytes[i] + (n & 0xff));
  return IpAddr::v6(bytes);
}

void add_service(discovery::Registry& registry, const std::vector<Cidr>& cidrs, uint32_t i,
                 const SockAddr& endpoint) {
  kube::Service service;
  service.ns = "bench";
  service.name = "s" + std::to_string(i);
  for (const Cidr& cidr : cidrs)
    service.cluster_ips.push_back(nth_address(cidr, i + 1).to_string());
  service.cluster_ip = service.cluster_ips.front();
  kube::ServicePort port;
  port.port = 80;
  service.ports = {port};
  registry.upsert_service(service);
  kube::EndpointSlice slice;
  slice.ns = "bench";
  slice.name = service.name + "-1";
  slice.service_name = service.name;
  kube::SliceEndpoint one;
  one.addresses = {endpoint.ip.to_string()};
  slice.endpoints = {one};
  kube::EndpointSlice::Port target;
  target.port = endpoint.port;
  slice.ports = {target};
  registry.upsert_slice(slice);
}

double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

int main(int argc, char** argv) {
  auto args = bench::parse_args(argc, argv);
  if (args.contains("help") || !args.contains("cidr") || !args.contains("endpoint")) {
    std::puts(kHelp);
    return args.contains("help") ? 0 : 2;
  }
  signal(SIGPIPE, SIG_IGN);
  auto number = [&](const char* name, int fallback) {
    return args.contains(name) ? std::atoi(args[name].c_str()) : fallback;
  };
  proxy::CaptureConfig config;
  for (size_t at = 0; at < args["cidr"].size();) {
    size_t comma = std::min(args["cidr"].find(',', at), args["cidr"].size());
    config.service_cidrs.push_back(must(Cidr::parse(args["cidr"].substr(at, comma - at))));
    at = comma + 1;
  }
  if (args["mode"] == "tproxy") config.mode = proxy::CaptureMode::kTproxy;
  if (args["mode"] == "redirect") config.mode = proxy::CaptureMode::kRedirect;
  if (args.contains("dns")) config.dns_addresses = {must(IpAddr::parse(args["dns"]))};
  config.tproxy_port = static_cast<uint16_t>(number("tproxy-port", 15001));
  config.redirect_port = static_cast<uint16_t>(number("redirect-port", 15002));
  SockAddr endpoint = must(SockAddr::parse(args["endpoint"]));

  auto loop = must(io::Loop::create());
  obs::Registry metrics;
  proxy::ProxyOptions options;
  options.workers = number("workers", 1);
  options.listeners = proxy::capture_listeners(config.tproxy_port, config.redirect_port);
  options.l4.access_log = args.contains("access-log");
  auto proxy = must(proxy::Proxy::create(*loop, options, metrics));
  proxy->start();

  discovery::Registry registry(*loop);
  int services = number("services", 1);
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < services; ++i)
    add_service(registry, config.service_cidrs, static_cast<uint32_t>(i), endpoint);
  proxy->set_snapshot(registry.snapshot());
  double snapshot_ms = ms_since(start);
  start = std::chrono::steady_clock::now();
  auto capture = must(proxy::Capture::install(*loop, io::system_executor(), config));
  std::printf(
      "{\"ready\":true,\"mode\":\"%s\",\"services\":%d,\"capture_ms\":%.2f,\"snapshot_ms\":%.2f}\n",
      std::string(to_string(capture->mode())).c_str(), services, ms_since(start), snapshot_ms);
  std::fflush(stdout);

  auto stop = [&] { proxy->drain([&] { loop->stop(); }); };
  auto term = must(io::SignalWatch::start(*loop, SIGTERM, stop));
  auto interrupt = must(io::SignalWatch::start(*loop, SIGINT, stop));
  loop->run();
  capture.reset();
  proxy->stop();
  return 0;
}
