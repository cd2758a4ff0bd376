#include "agent/meta/meta_module.h"

#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::agent {
namespace {

struct Sink final : MetaSink {
  void on_object(const MetaKey& key, std::string_view json) override {
    log.push_back("has " + key.text());
    objects[key] = json;
  }
  void on_object_gone(const MetaKey& key, const std::string& uid) override {
    log.push_back("gone " + key.text() + " " + uid);
    objects.erase(key);
  }
  void on_objects_loaded() override { log.push_back("loaded"); }
  void on_pod_list(const std::vector<std::string>& uids) override { listed = uids; }
  std::vector<std::string> listed;
  std::vector<std::string> log;
  std::map<MetaKey, std::string> objects;
};

using Log = std::vector<std::string>;

class MetaModuleTest : public MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    boot();
  }
  void TearDown() override { bus_->stop(); }
  // A start of the agent, on what is on disk.
  void boot() {
    if (bus_) bus_->stop();
    bus_.reset();
    module_.reset();
    sink_ = {};
    hub_.sent.clear();
    open_store();
    module_ = std::make_unique<MetaModule>(*loop_, *store_, registry_);
    module_->add_sink(&sink_);
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(*module_));
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
  }
  void connect() {
    ASSERT_TRUE(bus_->send(
        kMetaModule,
        bus::make_message("edgehub", "meta", "connect", "node/connection", "\"cloud_connected\"")));
    settle();
  }
  static Json pod(const std::string& name, const std::string& uid, const std::string& version) {
    return {
        {"kind", "Pod"},
        {"metadata",
         {{"namespace", "default"}, {"name", name}, {"uid", uid}, {"resourceVersion", version}}}};
  }
  std::string deliver(const std::string& operation, const std::string& resource,
                      const Json& content, const std::string& version = "") {
    bus::Message m =
        bus::make_message("edgecontroller", "resource", operation, resource, content.dump());
    m.resource_version = version;
    const std::string id = m.id;
    EXPECT_TRUE(bus_->send(kMetaModule, std::move(m)));
    return id;
  }
  Sink sink_;
  std::unique_ptr<MetaModule> module_;
};

TEST_F(MetaModuleTest, ConfirmsWhatIsOnDiskAndKeepsItOverARestart) {
  connect();
  hub_.sent.clear();
  const std::string id = deliver("insert", "default/pod/web", pod("web", "u1", "7"), "7");
  const auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].parent_id, id);
  EXPECT_EQ(sent[0].operation, "response");
  EXPECT_EQ(sent[0].content, "\"OK\"");
  EXPECT_EQ(sent[0].resource, "default/pod/web");
  EXPECT_EQ(sink_.log, (Log{"loaded", "has default/pod/web"}));
  boot();
  EXPECT_EQ(sink_.log, (Log{"has default/pod/web", "loaded"}));
  const auto value = module_->get({"pod", "default", "web"});
  ASSERT_TRUE(value);
  EXPECT_EQ(Json::parse(*value), pod("web", "u1", "7"));
  EXPECT_FALSE(module_->get({"pod", "default", "other"}));
}

TEST_F(MetaModuleTest, SaysWhatItHasAfterEachConnect) {
  deliver("insert", "default/pod/web", pod("web", "u1", "7"));
  settle();
  boot();
  connect();
  const auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].group, "mesh");
  EXPECT_EQ(sent[0].operation, "get");
  EXPECT_EQ(sent[0].resource, "objects");
  EXPECT_EQ(
      Json::parse(sent[0].content),
      Json::parse(
          R"({"objects":[{"resource":"default/pod/web","uid":"u1","resourceVersion":"7"}]})"));
}

TEST_F(MetaModuleTest, OldAndRepeatedMessagesAreConfirmedAndIgnored) {
  connect();
  deliver("insert", "default/pod/web", pod("web", "u1", "7"), "7");
  settle();
  hub_.sent.clear();
  sink_.log.clear();
  deliver("insert", "default/pod/web", pod("web", "u1", "7"), "7");
  deliver("update", "default/pod/web", pod("web", "u1", "6"), "6");
  deliver("delete", "default/pod/web", pod("web", "u0", "9"));
  EXPECT_EQ(take().size(), 3U);
  EXPECT_TRUE(sink_.log.empty());
  // Made anew under the same name: another object, whatever its version.
  deliver("insert", "default/pod/web", pod("web", "u2", "3"), "3");
  EXPECT_EQ(take().size(), 1U);
  EXPECT_EQ(sink_.log, (Log{"has default/pod/web"}));
}

TEST_F(MetaModuleTest, DeletesByUidOrWhateverIsThere) {
  connect();
  deliver("insert", "default/pod/web", pod("web", "u1", "7"), "7");
  deliver("update", "default/secret/key",
          Json{{"metadata", {{"namespace", "default"}, {"name", "key"}, {"uid", "s1"}}}}, "8");
  settle();
  sink_.log.clear();
  deliver("delete", "default/pod/web", pod("web", "u1", "9"));
  deliver("delete", "default/secret/key", Json{{"metadata", {{"name", "key"}}}});
  settle();
  EXPECT_EQ(sink_.log, (Log{"gone default/pod/web u1", "gone default/secret/key s1"}));
  boot();
  EXPECT_EQ(sink_.log, (Log{"loaded"}));
}

TEST_F(MetaModuleTest, AMessageThatIsNoSuchObjectIsNotConfirmed) {
  connect();
  hub_.sent.clear();
  deliver("insert", "default/pod/web", pod("other", "u1", "7"));
  deliver("insert", "default/pod/web", 7);
  deliver("insert", "default/podlist/web", Json::array());
  deliver("insert", "nonsense", Json::object());
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(sink_.log, (Log{"loaded"}));
}

TEST_F(MetaModuleTest, ContentMayBeAStringThatHoldsTheObject) {
  connect();
  hub_.sent.clear();
  deliver("insert", "default/pod/web", Json(pod("web", "u1", "7").dump()), "7");
  EXPECT_EQ(take().size(), 1U);
  EXPECT_EQ(Json::parse(sink_.objects.at({"pod", "default", "web"})), pod("web", "u1", "7"));
}

TEST_F(MetaModuleTest, ABurstIsConfirmedWhole) {
  connect();
  hub_.sent.clear();
  for (int i = 0; i < 5000; ++i) {
    const std::string n = std::to_string(i);
    deliver("insert", "default/pod/p" + n, pod("p" + n, "u" + n, "1"), "1");
  }
  EXPECT_EQ(take().size(), 5000U);
  EXPECT_EQ(module_->status().objects, 5000U);
}

TEST_F(MetaModuleTest, TheListOfPodsIsPassedOn) {
  deliver("update", "null/podlist/edge-1", {{"uids", {"a", 7, "b"}}});
  settle();
  EXPECT_EQ(sink_.listed, (Log{"a", "b"}));
  deliver("update", "null/podlist/edge-1", {{"uids", "a"}});
  settle();
  EXPECT_EQ(sink_.listed, (Log{"a", "b"}));
}

}  // namespace
}  // namespace edgemesh::agent
