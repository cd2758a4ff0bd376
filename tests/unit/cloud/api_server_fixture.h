// The embedded API behind a real HTTP server on loopback, and a client of it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cloud/api/server.h"
#include "cloud/kube_http_client.h"
#include "core/http/client.h"
#include "kube/informer.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "tests/support/test_pki.h"

namespace edgemesh::cloud {

class ApiServerTest : public testing::Test {
 protected:
  using json = nlohmann::json;

  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    EmbeddedApi::Options options;
    options.store.history_changes = 8;
    options.server.authenticator =
        make_authenticator({{"admin-token", {"admin", {"system:masters"}}},
                            {"node-token", {"system:node:n1", {"system:nodes"}}},
                            {"other-token", {"somebody", {}}}});
    auto api = EmbeddedApi::open(*loop_, std::move(options));
    ASSERT_TRUE(api) << api.error().message;
    api_ = std::move(*api);
    http::ServerOptions server;
    server.listen = *SockAddr::parse("127.0.0.1:0");
    auto made = http::Server::create(*loop_, server, [this](http::Request request, auto writer) {
      api_->server().handle(std::move(request), std::move(writer));
    });
    ASSERT_TRUE(made) << made.error().message;
    server_ = std::move(*made);
    http_ = std::make_unique<http::Client>(*loop_, http::ClientOptions());
    settle([&] { return api_->store().version() >= 4; });
  }
  void TearDown() override {
    informer_.reset();
    client_.reset();
    call_.reset();
    http_.reset();
    server_.reset();
    api_.reset();
  }
  void settle(const std::function<bool()>& done) {
    ASSERT_TRUE(loop_->run_until(done, std::chrono::seconds(10)));
  }
  std::string url(const std::string& target) {
    return "http://" + server_->local_addr().to_string() + target;
  }
  http::ClientRequest request(const std::string& method, const std::string& target,
                              const std::string& body = "",
                              const std::string& type = "application/json") {
    http::ClientRequest out;
    out.method = method;
    out.url = url(target);
    out.body = body;
    out.headers.set("Authorization", "Bearer " + token_);
    out.headers.set("Content-Type", type);
    if (!accept_.empty()) out.headers.set("Accept", accept_);
    return out;
  }
  http::Response send(const std::string& method, const std::string& target,
                      const std::string& body = "", const std::string& type = "application/json") {
    std::optional<http::Response> out;
    http_->request(request(method, target, body, type), [&](Result<http::Response> response) {
      EXPECT_TRUE(response) << response.error().message;
      out = response ? std::move(*response) : http::Response{.status = 0};
    });
    settle([&] { return out.has_value(); });
    return out.value_or(http::Response{.status = 0});
  }
  json get(const std::string& target) { return json::parse(send("GET", target).body); }
  static std::string service(const std::string& name, int port = 80) {
    return json({{"kind", "Service"},
                 {"apiVersion", "v1"},
                 {"metadata", {{"name", name}}},
                 {"spec", {{"ports", {{{"port", port}}}}}}})
        .dump();
  }
  // Starts a watch; its frames are collected in frames_.
  void watch(const std::string& target) {
    http::StreamHandler handler;
    handler.on_head = [this](const http::Response& head) { watch_status_ = head.status; };
    handler.on_data = [this](std::string_view data) {
      buffer_.append(data);
      size_t newline;
      while ((newline = buffer_.find('\n')) != std::string::npos) {
        frames_.push_back(json::parse(buffer_.substr(0, newline)));
        buffer_.erase(0, newline + 1);
      }
    };
    handler.on_end = [this](Result<> result) {
      EXPECT_TRUE(result);
      watch_ended_ = true;
    };
    call_ = http_->stream(request("GET", target), std::move(handler));
    settle([&] { return watch_status_ != 0; });
  }
  std::string seen() {
    std::string out;
    for (const json& frame : frames_) {
      out += frame["type"].get<std::string>() + " " +
             kube::text_at(frame["object"], "metadata", "name") + ";";
    }
    return out;
  }

  static constexpr const char* kPath = "/api/v1/namespaces/default/services";
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<EmbeddedApi> api_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<http::Client> http_;
  std::unique_ptr<http::Call> call_;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<kube::Informer> informer_;
  std::string token_ = "admin-token";
  std::string accept_;
  std::string buffer_;
  std::vector<json> frames_;
  int watch_status_ = 0;
  bool watch_ended_ = false;
};

}  // namespace edgemesh::cloud
