#include "agent/edged/node_parts.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "agent/edged/sweeper.h"
#include "tests/support/fake_cri.h"
#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::ElementsAre;

// As a process whose mounts nobody sees: no root is needed.
class NoMounter final : public Mounter {
 public:
  bool visible() override { return false; }
  Result<> mount_memory(const std::string&, int64_t) override { return {}; }
  Result<> bind(int, const std::string&) override { return {}; }
  Result<> unmount(const std::string&) override { return {}; }
  std::vector<std::string> mounted_under(const std::string&) override { return {}; }
};

class NodePartsTest : public agent::MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    open_store();
    meta_ = std::make_unique<agent::MetaModule>(*loop_, *store_, registry_);
    NodePartsOptions options;
    options.node = "edge-1";
    options.host_ip = "192.0.2.7";
    options.log_root = dir_.file("logs");
    options.volume_root = dir_.file("pods");
    options.cluster_dns = {"169.254.96.16"};
    options.resolv_conf = dir_.file("resolv.conf");
    std::ofstream(options.resolv_conf) << "nameserver 192.0.2.53\nsearch lan\n";
    parts_ = std::make_unique<NodeParts>(*meta_, options, nullptr, mounter_);
    meta_->add_sink(parts_.get());
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(*meta_));
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
  }
  void TearDown() override { bus_->stop(); }

  void store(const std::string& kind, const std::string& name, Json object) {
    object["metadata"]["namespace"] = "shop";
    object["metadata"]["name"] = name;
    if (!object["metadata"].contains("uid")) object["metadata"]["uid"] = "uid-" + name;
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    bus::Message message = bus::make_message("edgecontroller", "resource", "update",
                                             "shop/" + kind + "/" + name, object.dump());
    message.resource_version = std::to_string(version_);
    ASSERT_TRUE(bus_->send(agent::kMetaModule, std::move(message)));
    settle();
  }
  static Json pod_json(const std::string& uid = "u1") {
    return Json::parse(R"({"metadata": {"name": "web", "namespace": "shop", "uid": ")" + uid +
                       R"("},
      "spec": {"imagePullSecrets": [{"name": "gone"}, {"name": "login"}],
        "volumes": [{"name": "c", "configMap": {"name": "settings"}}],
        "containers": [{"name": "main", "image": "r.example/web:1",
          "terminationMessagePolicy": "FallbackToLogsOnError",
          "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
          "volumeMounts": [{"name": "c", "mountPath": "/c"}]}]}})");
  }
  static Pod pod(const Json& json = pod_json()) {
    auto out = parse_pod(json.dump());
    EXPECT_TRUE(out);
    return *out;
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path);
    std::string out;
    std::getline(in, out);
    return out;
  }

  NoMounter mounter_;
  std::unique_ptr<agent::MetaModule> meta_;
  std::unique_ptr<NodeParts> parts_;
  int version_ = 0;
};

TEST_F(NodePartsTest, APodGetsWhatTheMetastoreHas) {
  const Pod p = pod();
  auto early = parts_->prepare(p);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(early.error().message, "volume \"c\": configmap \"settings\" not found");

  store("configmap", "settings", {{"data", {{"k", "one"}}}});
  ASSERT_TRUE(parts_->prepare(p));
  auto sandbox = parts_->sandbox(p, 0);
  ASSERT_TRUE(sandbox);
  EXPECT_THAT(sandbox->dns_config().servers(), ElementsAre("169.254.96.16"));
  EXPECT_EQ(sandbox->dns_config().searches(3), "lan");
  PodView view;
  view.put(SandboxView{.id = "s", .ready = true, .ips = {"10.88.0.5"}});
  auto container = parts_->container(p, p.containers[0], 0, view);
  ASSERT_TRUE(container) << container.error().message;
  EXPECT_EQ(container->envs(0).value(), "10.88.0.5");
  ASSERT_EQ(container->mounts_size(), 3);
  EXPECT_EQ(container->mounts(0).container_path(), "/c");
  EXPECT_TRUE(fs::is_directory(dir_.file("logs/shop_web_u1/main")));

  store("configmap", "settings", {{"data", {{"k", "two"}}}});
  EXPECT_EQ(read(container->mounts(0).host_path() + "/k"), "two");

  parts_->tear_down(p);
  EXPECT_FALSE(fs::exists(dir_.file("logs/shop_web_u1")));
  EXPECT_FALSE(fs::exists(dir_.file("pods/u1")));
}

TEST_F(NodePartsTest, NamesThatLeadElsewhereAreRefused) {
  Json bad = pod_json();
  bad["metadata"]["name"] = "../../x";
  EXPECT_FALSE(parts_->prepare(pod(bad)));
  fs::create_directories(dir_.file("x"));
  parts_->tear_down(pod(bad));
  EXPECT_TRUE(fs::exists(dir_.file("x")));
  EXPECT_FALSE(parts_->prepare(pod(pod_json(".."))));
}

TEST_F(NodePartsTest, LoginsOfThePodsSecrets) {
  // {"auths":{"r.example":{"auth":"Ym9iOnB3"}}}
  store(
      "secret", "login",
      {{"data",
        {{".dockerconfigjson", "eyJhdXRocyI6eyJyLmV4YW1wbGUiOnsiYXV0aCI6IlltOWlPbkIzIn19fQ=="}}}});
  const auto logins = parts_->logins(pod(), "r.example/web:1");
  ASSERT_EQ(logins.size(), 1u);
  EXPECT_EQ(logins[0].username(), "bob");
  EXPECT_TRUE(parts_->logins(pod(), "other.example/web:1").empty());
}

TEST_F(NodePartsTest, LastWords) {
  store("configmap", "settings", {{"data", {{"k", "one"}}}});
  const Pod p = pod();
  ASSERT_TRUE(parts_->prepare(p));
  auto container = parts_->container(p, p.containers[0], 2, {});
  ASSERT_TRUE(container);
  ContainerView view{.name = "main", .attempt = 2, .exit_code = 1};
  view.log_path = dir_.file("logs/shop_web_u1/main/2.log");
  std::ofstream(view.log_path) << "2023-01-01T00:00:00.000000000Z stderr F it broke\n";
  EXPECT_EQ(parts_->last_words(p, view), "it broke\n");
  std::ofstream(container->mounts(2).host_path()) << "own words";
  EXPECT_EQ(parts_->last_words(p, view), "own words");
  view.exit_code = 0;
  view.attempt = 3;
  EXPECT_EQ(parts_->last_words(p, view), "");
}

TEST_F(NodePartsTest, FoldersOfPodsThatAreGoneAreSwept) {
  store("configmap", "settings", {{"data", {{"k", "one"}}}});
  store("pod", "web", pod_json("u1"));
  ASSERT_TRUE(parts_->prepare(pod()));
  for (const char* folder :
       {"pods/old", "logs/shop_old_old", "pods/held", "logs/shop_held_held", "logs/somebody"})
    fs::create_directories(dir_.file(folder));
  test::FakeRuntime runtime(*loop_);
  cri::pb::RunPodSandboxRequest request;
  request.mutable_config()->mutable_metadata()->set_uid("held");
  runtime.run_pod_sandbox(request, [](auto) {});
  settle();
  Sweeper sweeper(*loop_, runtime, *meta_, *parts_);
  runtime.fail_next("ListPodSandbox", {ErrorCode::kUnavailable, "away", 0});
  clock_.advance(Sweeper::kFirst);
  settle();
  EXPECT_TRUE(fs::exists(dir_.file("pods/old")));  // the runtime did not answer
  clock_.advance(Sweeper::kEvery);
  settle();
  EXPECT_FALSE(fs::exists(dir_.file("pods/old")));
  EXPECT_FALSE(fs::exists(dir_.file("logs/shop_old_old")));
  for (const char* kept :
       {"pods/held", "logs/shop_held_held", "logs/somebody", "pods/u1", "logs/shop_web_u1"})
    EXPECT_TRUE(fs::exists(dir_.file(kept))) << kept;
}

}  // namespace
}  // namespace edgemesh::edged
