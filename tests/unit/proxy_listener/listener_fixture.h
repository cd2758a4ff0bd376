// An L7Proxy on one loop, with real sockets on the loopback and a clock that is turned by hand.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "core/io/tcp.h"
#include "core/tls/tls_stream.h"
#include "proxy/http/h2_client.h"
#include "proxy/listener/l7_proxy.h"
#include "tests/support/test_pki.h"
#include "tests/unit/proxy_http/h1_test_support.h"

namespace edgemesh::proxy {

using h1test::Side;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

class ListenerTest : public testing::Test {
 protected:
  ListenerTest() {
    loop_ = std::move(*io::Loop::create(clock_));
    batch_ = std::make_unique<WriteBatch>(*loop_);
    http_ = serve("http", true);
    bytes_ = serve("bytes", false);
    proxy_ = std::move(*L7Proxy::create(*loop_, {loop_.get()}, {}));
  }
  ~ListenerTest() override {
    if (proxy_ != nullptr) proxy_->stop();
    clients_.clear();
    proxy_.reset();
    servers_.clear();
    settle(3);
  }

  // `listeners` and `routes` as the configuration has them; the clusters http and bytes are there.
  [[nodiscard]] Result<> apply(const std::string& listeners,
                               const std::string& routes = "[{match: {prefix: /}, cluster: http}]") {
    const std::string text = "listeners:\n" + listeners +
                             "\nroutes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes: " +
                             routes + "\nclusters:\n" + cluster("http", http_) +
                             cluster("bytes", bytes_) + more_clusters_;
    EM_TRY(auto config, model::parse_config(text, "test"));
    auto applied = proxy_->apply(config);
    settle(5);
    return applied;
  }
  static std::string cluster(const std::string& name, const SockAddr& addr) {
    return fmt::format("- {{name: {}, endpoints: [{{address: \"{}\"}}]}}\n", name, addr.to_string());
  }
  static std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '\n')
        out += "\\n";
      else
        out += c;
    }
    return out + "\"";
  }
  SockAddr addr_of(const std::string& listener) {
    for (const auto& [name, addr] : proxy_->listen_addrs())
      if (name == listener) return addr;
    return {};
  }

  test::Collector& dial(const SockAddr& to) {
    return *clients_.emplace_back(std::make_unique<test::Collector>(
        std::move(*io::TcpStream::connect(*loop_, to))));
  }
  test::Collector& dial(const std::string& listener) { return dial(addr_of(listener)); }
  test::Collector& dial_tls(const SockAddr& to, const test::TestPki& pki, const std::string& name,
                            std::vector<std::string> alpn = {}, const tls::KeyAndCert& id = {}) {
    auto options = pki.options(id);
    options.alpn = std::move(alpn);
    auto stream =
        tls::TlsStream::client(*loop_, std::move(*io::TcpStream::connect(*loop_, to)),
                               test::TestPki::take(tls::Context::client(options)), name);
    tls_ = stream->get();
    return *clients_.emplace_back(std::make_unique<test::Collector>(std::move(*stream)));
  }
  // Sends, waits for `wanted` in what comes; all that came.
  std::string talk(test::Collector& client, std::string_view text, const std::string& wanted) {
    client.send(text);
    EXPECT_TRUE(until([&] {
      return client.received.find(wanted) != std::string::npos || client.failed || client.eof;
    })) << wanted;
    return client.received;
  }
  static std::string get(std::string_view path) {
    return fmt::format("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", path);
  }
  [[nodiscard]] bool until(const std::function<bool()>& done) {
    return loop_->run_until(done, seconds(10));
  }
  void settle(int turns = 30) {
    for (int i = 0; i < turns; ++i) loop_->run_once(milliseconds(1));
  }
  void advance(Duration by) {
    settle(10);
    clock_.advance(by);
    settle(10);
  }
  std::string metric(const std::string& line) {
    std::string text;
    proxy_->append_metrics(text);
    const size_t at = text.find(line);
    return at == std::string::npos ? "" : text.substr(at, text.find('\n', at) - at);
  }

  // An endpoint. HTTP: answers with its name, the path, x-forwarded-for, the certificate's field and
  // the size of the body. Bytes: says "hello " and its name, then what it got.
  SockAddr serve(const std::string& name, bool http) {
    Server& server = servers_.emplace_back();
    auto accept = [this, &server, name, http](io::Fd fd, const SockAddr&) {
      auto stream = io::TcpStream::adopt(*loop_, std::move(fd));
      if (!stream) return;
      if (!http) {
        server.raw.push_back(std::make_unique<test::Collector>(std::move(*stream)));
        server.raw.back()->send("hello " + name + ";");
        return;
      }
      auto& side = *server.http.emplace_back(std::make_unique<h1test::ServerSide>());
      side.hook = [name](Side& request) {
        auto reply = [&request, name] {
          if (!request.ended || !request.stream || !request.reset.empty()) return;
          const Head& head = *request.head;
          h1test::answer(*request.stream, 200,
                         fmt::format("{}|{}|{}|{}|{}.", name, head.path, head.get("x-forwarded-for"),
                                     head.get("x-forwarded-client-cert"), request.body.size()));
          request.stream.reset();
        };
        request.on_any = reply;
        reply();
      };
      side.connection = make_h1_server(*loop_, *batch_, std::move(*stream), {}, &side);
    };
    server.listener = std::move(
        *io::TcpListener::listen(*loop_, SockAddr{IpAddr::v4(0x7f000001), 0}, accept));
    return server.listener->local_addr();
  }

  struct Server {
    std::unique_ptr<io::TcpListener> listener;
    std::vector<std::unique_ptr<h1test::ServerSide>> http;
    std::vector<std::unique_ptr<test::Collector>> raw;
  };
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<WriteBatch> batch_;
  std::list<Server> servers_;  // http, bytes, then what a test adds
  SockAddr http_, bytes_;
  std::string more_clusters_;
  std::unique_ptr<L7Proxy> proxy_;
  std::vector<std::unique_ptr<test::Collector>> clients_;
  tls::TlsStream* tls_ = nullptr;  // of the last dial_tls()
};

}  // namespace edgemesh::proxy
