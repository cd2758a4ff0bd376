// Parts for the tests of datagrams: clients and servers on the test's loop, over loopback.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

#include "core/io/udp.h"
#include "discovery/registry.h"
#include "proxy/udp/udp_listener.h"

namespace edgemesh::proxy::testing_parts {

inline SockAddr addr(std::string_view text) {
  return *SockAddr::parse(text);
}

inline std::string as_string(std::span<const uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}
inline std::span<const uint8_t> as_span(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};  // NOLINT
}

// A socket that keeps what it gets; an echo server when told so.
class TestSocket {
 public:
  struct Got {
    std::string data;
    SockAddr from;
  };
  explicit TestSocket(io::Loop& loop, const SockAddr& at = addr("127.0.0.1:0"), bool echo = false) {
    io::UdpSocket::Options options;
    options.buffer_bytes = 4 << 20;
    auto on_datagram = [this, echo](std::span<const uint8_t> data, size_t, const SockAddr& from) {
      ++received;
      if (keep) got.push_back({as_string(data), from});
      if (echo) (void)socket_->send_to(data, from);
    };
    auto made = io::UdpSocket::bind(loop, at, on_datagram, options);
    EXPECT_TRUE(made) << made.error().message;
    socket_ = std::move(*made);
  }
  SockAddr address() const { return socket_->local_addr(); }
  void send(std::string_view text, const SockAddr& to) {
    auto sent = socket_->send_to(as_span(text), to);
    EXPECT_TRUE(sent && *sent);
  }
  std::vector<Got> got;
  size_t received = 0;
  bool keep = true;

 private:
  std::unique_ptr<io::UdpSocket> socket_;
};

// A port where nobody listens.
inline SockAddr dead_port(io::Loop& loop) {
  return TestSocket(loop).address();
}

struct TestService {
  SockAddr vip;
  std::vector<SockAddr> endpoints;
  std::string protocol = "UDP";
  std::string node = "here";
};

inline void add_service(discovery::Registry& registry, const std::string& name,
                        const TestService& test) {
  kube::Service service;
  service.ns = "default";
  service.name = name;
  service.cluster_ip = test.vip.ip.to_string();
  service.cluster_ips = {service.cluster_ip};
  kube::ServicePort port;
  port.name = "main";
  port.protocol = test.protocol;
  port.port = test.vip.port;
  service.ports = {port};
  registry.upsert_service(service);
  for (size_t i = 0; i < 4; ++i) registry.remove_slice("default", name + "-" + std::to_string(i));
  size_t number = 0;
  for (const SockAddr& endpoint : test.endpoints) {
    kube::EndpointSlice slice;
    slice.ns = "default";
    slice.name = name + "-" + std::to_string(number++);
    slice.service_name = name;
    kube::SliceEndpoint one;
    one.addresses = {endpoint.ip.to_string()};
    one.node_name = test.node;
    slice.endpoints = {one};
    kube::EndpointSlice::Port target;
    target.name = "main";
    target.protocol = test.protocol;
    target.port = endpoint.port;
    slice.ports = {target};
    registry.upsert_slice(slice);
  }
}

// A listener on all IPv4 addresses: each address of 127/8 is a destination of its own.
class UdpTest : public ::testing::Test {
 protected:
  explicit UdpTest(Clock& clock = system_clock())
      : loop(std::move(*io::Loop::create(clock))), services(*loop) {
    UdpOptions udp;
    udp.node = "here";
    udp.access_log = false;
    context = std::make_unique<UdpContext>(*loop, udp, registry, 0);
    options.listen = addr("0.0.0.0:0");
  }
  void listen() {
    auto made = UdpListener::listen(*context, options,
                                    std::make_unique<ServiceDirectory>("here", "", snapshot));
    ASSERT_TRUE(made) << made.error().message;
    listener = std::move(*made);
  }
  SockAddr at(std::string_view ip) const {
    return {*IpAddr::parse(ip), listener->local_addr().port};
  }
  void serve(const std::string& name, const TestService& test) {
    add_service(services, name, test);
    snapshot = services.snapshot();
  }
  bool wait(const std::function<bool()>& done) {
    return loop->run_until(done, std::chrono::seconds(20));
  }
  uint64_t dropped(UdpDrop why) {
    return context->metrics.dropped[static_cast<size_t>(why)]->value();
  }
  uint64_t ended(FlowEnd why) { return context->metrics.ended[static_cast<size_t>(why)]->value(); }

  std::unique_ptr<io::Loop> loop;
  obs::Registry registry;
  discovery::Registry services;
  std::shared_ptr<const discovery::Snapshot> snapshot;
  std::unique_ptr<UdpContext> context;
  UdpListenOptions options;
  std::unique_ptr<UdpListener> listener;
};

}  // namespace edgemesh::proxy::testing_parts
