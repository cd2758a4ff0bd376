// The cloud without its program: CA, bootstrap, hub and controllers on a Kubernetes API in memory;
// and a node that joins it over loopback with real TLS.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cloud/bootstrap.h"
#include "cloud/dispatcher.h"
#include "cloud/hub.h"
#include "cloud/revocations.h"
#include "core/http/client.h"
#include "tests/support/fake_kube.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

class TestCloud {
 public:
  explicit TestCloud(io::Loop& loop, cloud::HubOptions hub_options = {})
      : loop_(loop), kube(loop), ca(take(cloud::Ca::open({.state_dir = dir_.path()}))) {
    revocations = take(cloud::Revocations::open(loop, kube, {.path = dir_.path() + "/revoked"}, registry));
    const auto check = [this](const std::string& node, int64_t not_before) {
      return revocations->check(node, not_before);
    };
    const tls::KeyAndCert server = take(ca->issue_server({"localhost", "127.0.0.1"}));
    hub_options.listen = {SockAddr{IpAddr::loopback(), 0}};
    hub_options.cert_pem = server.cert_pem;
    hub_options.key_pem = server.key_pem;
    hub_options.ca_pem = ca->cert_pem();
    hub_options.check_certificate = check;
    hub = take(cloud::Hub::create(loop, hub_options, registry));
    mesh =
        std::make_unique<cloud::MeshController>(loop, kube, *hub, cloud::MeshOptions{}, registry);
    nodes = std::make_unique<cloud::NodeController>(loop, kube, cloud::NodeOptions{});
    rendezvous =
        std::make_unique<cloud::Rendezvous>(loop, *hub, cloud::RendezvousOptions{}, registry);
    upstream = std::make_unique<cloud::Upstream>(kube, *hub);
    dispatcher = std::make_unique<cloud::Dispatcher>(
        cloud::Dispatcher::Parts{*hub, *mesh, *nodes, *rendezvous, *upstream, ca->cert_pem()},
        registry);
    hub->set_events(dispatcher.get());
    cloud::BootstrapOptions bootstrap_options;
    bootstrap_options.listen = {SockAddr{IpAddr::loopback(), 0}};
    bootstrap_options.cert_pem = server.cert_pem;
    bootstrap_options.key_pem = server.key_pem;
    claims = std::make_unique<cloud::NodeClaims>(kube, *hub);
    bootstrap_options.claim = [this](cloud::NodeClaim claim, cloud::NodeClaims::Done done) {
      claims->claim(std::move(claim), std::move(done));
    };
    bootstrap_options.check_certificate = check;
    bootstrap_options.not_before_floor = [this](const std::string& node, bool replaces) {
      return revocations->not_before_floor(node, replaces);
    };
    bootstrap = take(cloud::Bootstrap::create(loop, *ca, bootstrap_options, registry));
    mesh->start();
    nodes->start();
    revocations->set_on_change([this] {
      hub->close_refused();
      mesh->set_revoked(revocations->list());
    });
    revocations->start();
  }

  template <class T>
  static T take(Result<T> result) {
    if (!result) fmt::print(stderr, "test set-up: {}\n", result.error().message);
    EM_CHECK(result.has_value());
    return std::move(*result);
  }
  std::string token() const { return ca->new_token(std::chrono::hours(1)); }

 private:
  io::Loop& loop_;
  TempDir dir_;

 public:
  FakeKube kube;
  obs::Registry registry;
  std::unique_ptr<cloud::Ca> ca;
  std::unique_ptr<cloud::Revocations> revocations;
  std::unique_ptr<cloud::Hub> hub;
  std::unique_ptr<cloud::MeshController> mesh;
  std::unique_ptr<cloud::NodeController> nodes;
  std::unique_ptr<cloud::Rendezvous> rendezvous;
  std::unique_ptr<cloud::Upstream> upstream;
  std::unique_ptr<cloud::Dispatcher> dispatcher;
  std::unique_ptr<cloud::NodeClaims> claims;
  std::unique_ptr<cloud::Bootstrap> bootstrap;
};

// One node: what an agent does on the wire, step by step.
class TestNode final : public http::WebSocket::Handler {
 public:
  TestNode(io::Loop& loop, std::string name) : loop_(loop), name_(std::move(name)) {
    key_pem = TestCloud::take(tls::generate_key_pem());
  }

  // Status of the answer, 0 when the exchange failed (then `error` says why).
  int fetch_ca(SockAddr bootstrap, std::string* body) {
    return request(bootstrap, "/ca.crt", {}, "", nullptr, body);
  }
  int join(const TestCloud& cloud, const std::string& token) {
    const std::string jwt = token.substr(token.find('.') + 1);
    tls::ContextOptions options;
    options.ca_pem = cloud.ca->cert_pem();
    return get_certificate(cloud, {{"Authorization", "Bearer " + jwt}}, options);
  }
  int renew(const TestCloud& cloud) { return get_certificate(cloud, {}, identity(cloud)); }

  tls::ContextOptions identity(const TestCloud& cloud) const {
    tls::ContextOptions options;
    options.ca_pem = cloud.ca->cert_pem();
    options.cert_pem = cert_pem;
    options.key_pem = key_pem;
    return options;
  }
  // True when the channel is open; else `error` says why.
  bool connect(const TestCloud& cloud, std::string node_id = {}) {
    return connect(cloud, identity(cloud), node_id.empty() ? name_ : node_id);
  }
  bool connect(const TestCloud& cloud, const tls::ContextOptions& options,
               const std::string& node_id) {
    socket.reset();
    closed = false;
    messages.clear();
    error.clear();
    auto context = tls::Context::client(options);
    EXPECT_TRUE(context) << context.error().message;
    http::Headers headers{{"node_id", node_id},
                          {"project_id", "e632aba927ea4ac2b575ec1603d56f10"},
                          {"ConnectionUse", "msg"}};
    const std::string url =
        fmt::format("wss://127.0.0.1:{}/project/{}/events", cloud.hub->local_addr().port, node_id);
    bool done = false;
    auto call = http::WebSocket::connect(loop_, url, headers, *context,
                                         [&](Result<std::unique_ptr<http::WebSocket>> result) {
                                           done = true;
                                           if (!result) {
                                             error = result.error().message;
                                             return;
                                           }
                                           socket = std::move(*result);
                                           socket->set_handler(this);
                                         });
    EXPECT_TRUE(loop_.run_until([&] { return done; }, seconds(5)));
    if (socket == nullptr) return false;
    return loop_.run_until([&] { return closed || cloud.hub->connected(name_); }, seconds(5)) &&
           !closed;
  }
  void disconnect() { socket.reset(); }

  void send_text(const std::string& text) { EXPECT_TRUE(socket->send_text(text)); }
  std::string send(const std::string& group, const std::string& operation,
                   const std::string& resource, const nlohmann::json& content = nullptr) {
    channel::Message message;
    message.id = channel::new_id();
    message.timestamp_ms = channel::now_ms();
    message.source = group == "mesh" ? "mesh" : "edged";
    message.group = group;
    message.operation = operation;
    message.resource = resource;
    message.content = content.dump();
    send_text(channel::encode(message));
    return message.id;
  }
  // Takes the next message of that resource (any, when empty); others before it are dropped.
  std::optional<channel::Message> next(const std::string& resource = {}) {
    std::optional<channel::Message> found;
    loop_.run_until(
        [&] {
          while (!found && !messages.empty()) {
            channel::Message message = std::move(messages.front());
            messages.pop_front();
            if (resource.empty() || message.resource == resource) found = std::move(message);
          }
          return found.has_value() || closed;
        },
        seconds(5));
    return found;
  }

  std::string key_pem, cert_pem;
  std::string error;
  std::unique_ptr<http::WebSocket> socket;
  std::deque<channel::Message> messages;
  bool closed = false;
  uint16_t close_code = 0;
  std::string close_reason;

 private:
  int get_certificate(const TestCloud& cloud, http::Headers headers,
                      const tls::ContextOptions& options) {
    headers.add("NodeName", name_);
    headers.add("ExtKeyUsages", "[1,2]");
    const std::string csr = TestCloud::take(tls::make_csr_der(
        key_pem, {.common_name = "system:node:" + name_, .organizations = {"system:nodes"}}));
    auto context = TestCloud::take(tls::Context::client(options));
    std::string body;
    const int status =
        request(cloud.bootstrap->local_addr(), "/edge.crt", headers, csr, context, &body);
    if (status == 200) cert_pem = TestCloud::take(tls::cert_der_to_pem(body));
    if (status != 200) error = body;
    return status;
  }
  int request(SockAddr to, const std::string& path, http::Headers headers, const std::string& body,
              std::shared_ptr<tls::Context> context, std::string* answer) {
    http::Client client(loop_, {.tls = context});
    http::ClientRequest request;
    request.url = fmt::format("https://127.0.0.1:{}{}", to.port, path);
    request.headers = std::move(headers);
    request.body = body;
    request.insecure = context == nullptr;
    int status = -1;
    client.request(std::move(request), [&](Result<http::Response> response) {
      status = response ? response->status : 0;
      if (response) *answer = response->body;
      if (!response) error = response.error().message;
    });
    EXPECT_TRUE(loop_.run_until([&] { return status >= 0; }, seconds(5)));
    return status;
  }

  void on_message(std::string_view data, bool text) override {
    EXPECT_TRUE(text);
    auto message = channel::decode(data, 64 << 20);
    ASSERT_TRUE(message) << message.error().message;
    messages.push_back(std::move(*message));
  }
  void on_close(uint16_t code, const std::string& reason) override {
    closed = true;
    close_code = code;
    close_reason = reason;
  }

  io::Loop& loop_;
  std::string name_;
};

}  // namespace edgemesh::test
