// The node's API over a real socket; the cloud is a module on the bus that the test answers for.
#include "cmd/local_api/local_api.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "agent/hub_client.h"
#include "cloud/kube_http_client.h"
#include "core/http/client.h"
#include "core/tls/x509.h"
#include "kube/informer.h"
#include "kube/json_util.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::cmd {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

class FakeHub final : public bus::Module {
 public:
  std::string_view name() const override { return agent::kHubModule; }
  std::string_view group() const override { return "hub"; }
  Result<> start(bus::Bus& bus) override {
    bus_ = &bus;
    return {};
  }
  void stop() override {}
  void on_message(bus::Message message) override {
    auto asked = channel::decode_application(message.content);
    ASSERT_TRUE(asked) << asked.error().message;
    EXPECT_EQ(message.source, "metaserver");
    EXPECT_EQ(message.group, "dynamiccontroller");
    requests.push_back(*asked);
    channel::Application answer = *asked;
    if (refuse.empty()) {
      answer.status = channel::Application::Status::kApproved;
      answer.response = R"({"kind":"ConfigMap","metadata":{"resourceVersion":"77"}})";
    } else {
      answer.status = channel::Application::Status::kRejected;
      answer.error = refuse;
    }
    bus_->respond(bus::reply_to(message, channel::encode_application(answer)));
  }
  std::vector<channel::Application> requests;
  std::string refuse;

 private:
  bus::Bus* bus_ = nullptr;
};

class LocalApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
    calls_ = std::make_unique<agent::CloudCalls>(
        *bus_, agent::CloudCalls::Options{.node = "edge-1"}, [this] { return online_; });
    http_ = std::make_unique<http::Client>(*loop_, http::ClientOptions());
    open();
  }
  void TearDown() override {
    informer_.reset();
    client_.reset();
    stream_.reset();
    http_.reset();
    close();
    calls_.reset();
    bus_->stop();
  }
  void open() {
    auto store = agent::Metastore::open(*loop_, dir_.file("meta.db"), registry_);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    LocalApi::Options options;
    options.listen.port = port_;
    options.objects.history_changes = 4;
    options.max_watches = 2;
    auto api = LocalApi::create(*loop_, *store_, *calls_, options);
    ASSERT_TRUE(api) << api.error().message;
    api_ = std::move(*api);
    port_ = api_->local_addr().port;
  }
  void close() {
    api_.reset();
    store_.reset();
  }
  void restart() {
    close();
    open();
  }
  void settle(const std::function<bool()>& done) {
    ASSERT_TRUE(loop_->run_until(done, seconds(10)));
  }
  void flush() {
    bool done = false;
    store_->flush([&](Result<> result) {
      EXPECT_TRUE(result);
      done = true;
    });
    settle([&] { return done; });
    loop_->run_once();
  }
  static Json object(const std::string& name, const std::string& version,
                     const std::string& value = "v", const std::string& uid = "") {
    return {{"kind", "ConfigMap"},
            {"apiVersion", "v1"},
            {"metadata",
             {{"name", name},
              {"namespace", "default"},
              {"uid", uid.empty() ? "uid-" + name : uid},
              {"resourceVersion", version},
              {"labels", {{"value", value}}}}},
            {"data", {{"key", value}}}};
  }
  void put(const Json& object) {
    store_->put("default/configmap/" + kube::text_at(object, "metadata", "name"), "configmap",
                object.dump());
    flush();
  }
  void remove(const std::string& name) {
    store_->remove("default/configmap/" + name);
    flush();
  }
  http::ClientRequest request(const std::string& method, const std::string& target,
                              const std::string& body = {},
                              const std::string& type = "application/json") {
    http::ClientRequest out;
    out.method = method;
    out.url = fmt::format("http://127.0.0.1:{}{}", port_, target);
    out.body = body;
    if (!body.empty()) out.headers.set("Content-Type", type);
    for (const auto& [name, value] : headers_) out.headers.set(name, value);
    return out;
  }
  http::Response send(const std::string& method, const std::string& target,
                      const std::string& body = {}, const std::string& type = "application/json") {
    std::optional<http::Response> out;
    http_->request(request(method, target, body, type), [&](Result<http::Response> response) {
      EXPECT_TRUE(response) << response.error().message;
      out = response ? std::move(*response) : http::Response{.status = 0};
    });
    settle([&] { return out.has_value(); });
    return out.value_or(http::Response{.status = 0});
  }
  std::string status_with_host(const std::string& host) {
    io::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage to{};
    const socklen_t length = api_->local_addr().to_sockaddr(&to);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length), 0);
    const std::string text = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", kMaps, host);
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    std::string answer;
    settle([&] {
      char buffer[256];
      const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) answer.append(buffer, static_cast<size_t>(n));
      return answer.size() > 12;
    });
    return answer.size() > 12 ? answer.substr(9, 3) : answer;
  }
  Json get(const std::string& target) { return Json::parse(send("GET", target).body); }
  int watch(const std::string& target) {
    events_.clear();
    auto status = std::make_shared<int>(0);
    auto text = std::make_shared<std::string>();
    http::StreamHandler handler;
    handler.on_head = [status](const http::Response& head) { *status = head.status; };
    handler.on_data = [this, text](std::string_view data) {
      *text += data;
      for (size_t end; (end = text->find('\n')) != std::string::npos; text->erase(0, end + 1))
        events_.push_back(Json::parse(text->substr(0, end)));
    };
    handler.on_end = [](Result<>) {};
    stream_ = http_->stream(request("GET", target), std::move(handler));
    settle([&] { return *status != 0; });
    return *status;
  }
  std::string event(size_t at) {
    settle([&] { return events_.size() > at; });
    if (events_.size() <= at) return {};
    return kube::text_at(events_[at], "type") + " " +
           kube::text_at(events_[at]["object"], "metadata", "name") + " " +
           kube::text_at(events_[at]["object"], "data", "key");
  }

  static constexpr const char* kMaps = "/api/v1/namespaces/default/configmaps";
  test::TempDir dir_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  FakeHub hub_;
  std::unique_ptr<bus::Bus> bus_;
  std::unique_ptr<agent::Metastore> store_;
  std::unique_ptr<agent::CloudCalls> calls_;
  std::unique_ptr<LocalApi> api_;
  std::unique_ptr<http::Client> http_;
  std::unique_ptr<http::Call> stream_;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<kube::Informer> informer_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::vector<Json> events_;
  uint16_t port_ = 0;
  bool online_ = false;
};

TEST_F(LocalApiTest, WhatIsHeldCanBeReadWithoutACloud) {
  put(object("one", "5", "a"));
  put(object("two", "6", "b"));
  EXPECT_EQ(get(std::string(kMaps) + "/one")["data"]["key"], "a");
  EXPECT_EQ(get(kMaps)["items"].size(), 2U);
  EXPECT_EQ(get("/api/v1/configmaps?labelSelector=value%3Db")["items"][0]["metadata"]["name"],
            "two");
  EXPECT_EQ(get("/api/v1/configmaps?fieldSelector=metadata.name%3Done")["items"].size(), 1U);
  EXPECT_EQ(get("/api/v1/configmaps?limit=1")["metadata"]["remainingItemCount"], 1);
  EXPECT_EQ(send("GET", std::string(kMaps) + "/three").status, 404);
  EXPECT_EQ(get("/api/v1/namespaces")["items"][0]["metadata"]["name"], "default");
  EXPECT_EQ(get("/version")["major"], "1");
  std::string names;
  const Json resources = get("/api/v1");
  for (const Json& resource : resources["resources"])
    names += resource["name"].get<std::string>() + " ";
  EXPECT_NE(names.find("pods "), std::string::npos);
  EXPECT_EQ(names.find("persistentvolumes"), std::string::npos) << "what is not held is not shown";
}

TEST_F(LocalApiTest, AWatchGoesOnWhereAListEnded) {
  put(object("one", "5"));
  const std::string version = get(kMaps)["metadata"]["resourceVersion"];
  EXPECT_EQ(watch(fmt::format("{}?watch=1&resourceVersion={}", kMaps, version)), 200);
  put(object("one", "9", "w"));
  put(object("two", "7", "x"));  // the cloud's versions come in any order
  remove("one");
  EXPECT_EQ(event(0), "MODIFIED one w");
  EXPECT_EQ(event(1), "ADDED two x");
  EXPECT_EQ(event(2), "DELETED one w");
  uint64_t before = std::stoull(version);
  for (const Json& event : events_) {
    const uint64_t now = std::stoull(kube::text_at(event["object"], "metadata", "resourceVersion"));
    EXPECT_GT(now, before);
    before = now;
  }
}

TEST_F(LocalApiTest, AnObjectThatWasMadeAnewIsAnotherOne) {
  put(object("one", "5"));
  EXPECT_EQ(watch(std::string(kMaps) + "?watch=1"), 200);
  EXPECT_EQ(event(0), "ADDED one v");
  put(object("one", "5", "n", "another"));
  EXPECT_EQ(event(1), "DELETED one v");
  EXPECT_EQ(event(2), "ADDED one n");
  put(object("one", "5", "n", "another"));  // sent once more: no news
  put(object("two", "6"));
  EXPECT_EQ(event(3), "ADDED two v");
}

TEST_F(LocalApiTest, OldVersionsAreGone) {
  put(object("one", "1"));
  const std::string version = get(kMaps)["metadata"]["resourceVersion"];
  for (int i = 2; i < 10; ++i) put(object("one", std::to_string(i), std::to_string(i)));
  EXPECT_EQ(watch(fmt::format("{}?watch=1&resourceVersion={}", kMaps, version)), 410);
  const std::string newest = get(kMaps)["metadata"]["resourceVersion"];
  EXPECT_EQ(watch(fmt::format("{}?watch=1&resourceVersion={}", kMaps, newest)), 200);
}

TEST_F(LocalApiTest, VersionsOfAnEarlierRunAreGone) {
  put(object("one", "5"));
  put(object("two", "6"));
  const std::string version = get(kMaps)["metadata"]["resourceVersion"];
  remove("two");
  restart();
  EXPECT_EQ(get(kMaps)["items"].size(), 1U);
  EXPECT_EQ(watch(fmt::format("{}?watch=1&resourceVersion={}", kMaps, version)), 410);
  EXPECT_GT(std::stoull(get(kMaps)["metadata"]["resourceVersion"].get<std::string>()),
            std::stoull(version));
}

TEST_F(LocalApiTest, AnInformerLivesThroughARestart) {
  put(object("one", "5", "a"));
  cloud::KubeConfig config;
  config.server = fmt::format("http://127.0.0.1:{}", port_);
  auto client = cloud::make_http_client(*loop_, config);
  ASSERT_TRUE(client) << client.error().message;
  client_ = std::move(*client);
  kube::Informer::Options options;
  options.type = kube::kConfigMaps;
  options.backoff_min = options.backoff_max = std::chrono::milliseconds(20);
  informer_ =
      std::make_unique<kube::Informer>(*loop_, *client_, options, kube::Informer::Handlers());
  informer_->start();
  settle([&] { return informer_->find("default", "one") != nullptr; });
  put(object("two", "6"));
  settle([&] { return informer_->find("default", "two") != nullptr; });
  restart();
  remove("one");
  put(object("three", "4"));
  settle([&] {
    return informer_->find("default", "one") == nullptr &&
           informer_->find("default", "three") != nullptr;
  });
}

TEST_F(LocalApiTest, WritesWithoutACloudAreRefusedAtOnce) {
  const http::Response refused = send("POST", kMaps, object("one", "").dump());
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(Json::parse(refused.body)["reason"], "ServiceUnavailable");
  EXPECT_EQ(Json::parse(refused.body)["kind"], "Status");
  EXPECT_EQ(send("DELETE", std::string(kMaps) + "/one").status, 503);
  EXPECT_EQ(send("GET", "/apis/apps/v1/deployments").status, 503);  // not held: the cloud's
  EXPECT_TRUE(hub_.requests.empty());
}

TEST_F(LocalApiTest, WritesGoToTheCloud) {
  online_ = true;
  put(object("one", "55"));
  Json held = get(std::string(kMaps) + "/one");
  EXPECT_NE(held["metadata"]["resourceVersion"], "55");
  held["data"]["key"] = "new";
  const http::Response updated =
      send("PUT", std::string(kMaps) + "/one?fieldManager=probe", held.dump());
  EXPECT_EQ(updated.status, 200);
  EXPECT_EQ(Json::parse(updated.body)["metadata"]["resourceVersion"], "77");
  ASSERT_EQ(hub_.requests.size(), 1U);
  const channel::Application& request = hub_.requests[0];
  EXPECT_EQ(request.verb, "update");
  EXPECT_EQ(request.node, "edge-1");
  EXPECT_EQ(request.resource + "/" + request.ns + "/" + request.name, "configmaps/default/one");
  EXPECT_EQ(Json::parse(request.body)["metadata"]["resourceVersion"], "55")
      << "as the cloud knows it";
  EXPECT_EQ(Json::parse(request.option)["fieldManager"], "probe");

  EXPECT_EQ(send("POST", kMaps, object("new", "").dump()).status, 201);
  EXPECT_EQ(send("PATCH", std::string(kMaps) + "/one", R"({"data":{"a":"b"}})",
                 "application/merge-patch+json")
                .status,
            200);
  const Json patch = Json::parse(hub_.requests[2].option);
  EXPECT_EQ(patch["PatchType"], "application/merge-patch+json");
  EXPECT_EQ(*tls::base64_decode(patch["Data"].get<std::string>()), R"({"data":{"a":"b"}})");
  EXPECT_EQ(send("DELETE", std::string(kMaps) + "/one?gracePeriodSeconds=0").status, 200);
  EXPECT_EQ(Json::parse(hub_.requests[3].option)["gracePeriodSeconds"], 0);
  EXPECT_EQ(send("PUT", "/api/v1/nodes/edge-1/status", R"({"metadata":{"name":"edge-1"}})").status,
            200);
  EXPECT_EQ(hub_.requests[4].verb, "updatestatus");
  EXPECT_EQ(send("DELETE", kMaps).status, 405) << "never all of them at once";
}

TEST_F(LocalApiTest, WhatTheCloudRefusesIsSaidInItsWords) {
  online_ = true;
  hub_.refuse =
      R"({"kind":"Status","code":403,"reason":"Forbidden","message":"node edge-1 may not"})";
  const http::Response refused = send("POST", kMaps, object("one", "").dump());
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(Json::parse(refused.body)["message"], "node edge-1 may not");
}

TEST_F(LocalApiTest, PagesInABrowserAreRefused) {
  headers_ = {{"Origin", "http://evil.example"}};
  EXPECT_EQ(send("GET", kMaps).status, 403);
  headers_.clear();
  EXPECT_EQ(status_with_host("evil.example:10550"), "403");
  EXPECT_EQ(status_with_host("localhost:10550"), "200");
  EXPECT_EQ(status_with_host("[::1]:10550"), "200");
}

TEST_F(LocalApiTest, WatchesAreLimited) {
  std::vector<std::unique_ptr<http::Call>> open;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(watch(std::string(kMaps) + "?watch=1"), 200);
    open.push_back(std::move(stream_));
  }
  EXPECT_EQ(watch(std::string(kMaps) + "?watch=1"), 429);
  EXPECT_EQ(send("GET", "/apis/apps/v1/deployments?watch=1").status, 404);
}

}  // namespace
}  // namespace edgemesh::cmd
