#include "agent/mesh_module.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "agent/hub_client.h"
#include "tests/support/fake_hub.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::agent {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

struct Sink final : MeshSink {
  void upsert_service(const kube::Service& s) override {
    services.insert(s.ns + "/" + s.name);
    log.push_back("service " + s.name);
  }
  void remove_service(const std::string& ns, const std::string& name) override {
    services.erase(ns + "/" + name);
  }
  void upsert_slice(const kube::EndpointSlice& s) override { slices.insert(s.ns + "/" + s.name); }
  void remove_slice(const std::string& ns, const std::string& name) override {
    slices.erase(ns + "/" + name);
  }
  void on_config(const MeshConfig& c) override {
    config = c;
    ++configs;
  }
  void on_signal(const std::string& from, std::string_view json) override {
    signals.emplace_back(from, json);
  }
  void on_signal_error(const std::string& node, std::string_view reason) override {
    errors.emplace_back(node, reason);
  }
  void on_synced() override { ++synced; }

  std::set<std::string> services, slices;
  std::vector<std::string> log;
  MeshConfig config;
  int configs = 0;
  int synced = 0;
  std::vector<std::pair<std::string, std::string>> signals, errors;
};

// Stands in for the hub client: keeps what would go to the cloud.
class MeshModuleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    boot();
  }
  void TearDown() override { bus_->stop(); }
  // A start of the agent, on what is on disk.
  void boot() {
    if (bus_) bus_->stop();
    bus_.reset();
    module_.reset();
    store_.reset();
    sink_ = {};
    hub_.sent.clear();
    auto store = Metastore::open(*loop_, dir_.path() + "/meta.db", registry_);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    module_ = std::make_unique<MeshModule>(*loop_, MeshModule::Options{.node = "edge-1"}, *store_,
                                           sink_, registry_);
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(*module_));
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
  }
  void turn() {
    for (int i = 0; i < 6; ++i) loop_->run_once();
  }
  void deliver(bus::Message message) {
    ASSERT_TRUE(bus_->send(kMeshModule, std::move(message)));
    turn();
  }
  void connected(bool is) {
    deliver(bus::make_message("edgehub", "mesh", "connect", "node/connection",
                              is ? "\"cloud_connected\"" : "\"cloud_disconnected\""));
  }
  static std::string object(const std::string& name) {
    return Json{{"metadata", {{"name", name}, {"namespace", "default"}}},
                {"spec", {{"clusterIP", "10.96.0.1"}}}}
        .dump();
  }
  void change(const std::string& operation, const std::string& type, const std::string& name,
              int version) {
    bus::Message m = bus::make_message("meshcontroller", "mesh", operation,
                                       "default/" + type + "/" + name, object(name));
    m.resource_version = std::to_string(version);
    deliver(std::move(m));
  }
  void begin(bool full, const std::string& epoch = "e1") {
    deliver(bus::make_message("meshcontroller", "mesh", "response", "sync/begin",
                              Json{{"full", full}, {"epoch", epoch}}.dump()));
  }
  void end(int version, const std::string& epoch = "e1") {
    deliver(bus::make_message(
        "meshcontroller", "mesh", "response", "sync/end",
        Json{{"resourceVersion", std::to_string(version)}, {"epoch", epoch}}.dump()));
  }
  // What the node last asked the cloud for.
  Json last_sync_request() {
    for (auto it = hub_.sent.rbegin(); it != hub_.sent.rend(); ++it)
      if (it->operation == "get" && it->resource == "sync") return Json::parse(it->content);
    return nullptr;
  }
  void full_sync() {
    connected(true);
    begin(true);
    change("insert", "service", "a", 1);
    change("insert", "service", "b", 2);
    change("insert", "endpointslice", "a-1", 3);
    end(3);
  }

  ManualClock clock_;
  test::TempDir dir_;
  obs::Registry registry_;
  std::unique_ptr<io::Loop> loop_;
  Sink sink_;
  test::FakeHub hub_;
  std::unique_ptr<Metastore> store_;
  std::unique_ptr<MeshModule> module_;
  std::unique_ptr<bus::Bus> bus_;
};

TEST_F(MeshModuleTest, ANewNodeAsksForEverything) {
  connected(true);
  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", ""}, {"epoch", ""}}));
  EXPECT_EQ(sink_.synced, 0);
  EXPECT_FALSE(module_->status().synced);
}

TEST_F(MeshModuleTest, AFullSyncFillsTheSink) {
  full_sync();
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/a", "default/b"}));
  EXPECT_EQ(sink_.slices, (std::set<std::string>{"default/a-1"}));
  EXPECT_EQ(sink_.synced, 1);
  const auto status = module_->status();
  EXPECT_TRUE(status.synced);
  EXPECT_EQ(status.services, 2U);
  EXPECT_EQ(status.slices, 1U);
  EXPECT_EQ(status.version, "3");
}

TEST_F(MeshModuleTest, AfterARestartItServesWhatItKnewWithoutTheCloud) {
  full_sync();
  deliver(bus::make_message(
      "meshcontroller", "mesh", "update", "config",
      R"({"trustDomain":"t","serviceCidrs":["10.0.0.0/8"],"turn":{"host":"h","port":1}})"));
  boot();

  EXPECT_EQ(module_->config().trust_domain, "t");
  EXPECT_EQ(sink_.services.size(), 2U);
  EXPECT_EQ(sink_.slices.size(), 1U);
  EXPECT_EQ(sink_.configs, 1);
  EXPECT_EQ(sink_.config.turn.host, "h");
  EXPECT_EQ(sink_.synced, 1);
  connected(true);
  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", "3"}, {"epoch", "e1"}}));
}

TEST_F(MeshModuleTest, WhatIsNewInTheListOfRevokedOnesIsKept) {
  full_sync();
  deliver(bus::make_message("meshcontroller", "mesh", "update", "config",
                            R"({"trustDomain":"t","revoked":[{"node":"a","before":1},)"
                            R"({"node":"b","before":2},{"node":"c","before":3}]})"));
  deliver(bus::make_message("meshcontroller", "mesh", "update", "revoked",
                            R"({"changed":[{"node":"b","before":9},{"node":"d","before":4}],)"
                            R"("removed":["a","x"]})"));
  const auto revoked = [&] {
    std::string out;
    for (const auto& entry : module_->config().revoked)
      out += fmt::format("{}:{} ", entry.node, entry.before);
    return out;
  };
  EXPECT_EQ(revoked(), "b:9 c:3 d:4 ");
  EXPECT_EQ(sink_.config.revoked.size(), 3U);
  EXPECT_EQ(module_->config().trust_domain, "t");
  boot();
  EXPECT_EQ(revoked(), "b:9 c:3 d:4 ");
  // Nonsense changes nothing.
  connected(true);
  for (const char* bad : {"7", R"({"changed":[{"node":"z"}]})", R"({"changed":[7]})"})
    deliver(bus::make_message("meshcontroller", "mesh", "update", "revoked", bad));
  EXPECT_EQ(revoked(), "b:9 c:3 d:4 ");
}

TEST_F(MeshModuleTest, LiveChangesMoveThePosition) {
  full_sync();
  change("update", "service", "a", 7);
  change("delete", "service", "b", 8);
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/a"}));
  boot();
  connected(true);
  EXPECT_EQ(last_sync_request()["resourceVersion"], "8");
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/a"}));
}

TEST_F(MeshModuleTest, ADeltaSyncLeavesWhatIsNotMentioned) {
  full_sync();
  connected(false);
  connected(true);
  begin(false);
  change("delete", "service", "a", 4);
  change("insert", "service", "c", 5);
  end(5);
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/b", "default/c"}));
  EXPECT_EQ(module_->status().delta_syncs, 1U);
}

TEST_F(MeshModuleTest, AFullSyncRemovesWhatWasNotSentAgain) {
  full_sync();
  boot();
  connected(true);
  begin(true, "e2");
  change("insert", "service", "b", 1);
  EXPECT_EQ(sink_.services.size(), 2U);  // nothing goes before the end
  end(1, "e2");

  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/b"}));
  EXPECT_TRUE(sink_.slices.empty());
  boot();
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/b"}));
}

TEST_F(MeshModuleTest, AFullSyncThatBreaksOffGoesOnWhereItWas) {
  full_sync();
  connected(false);
  connected(true);
  begin(true, "e2");
  change("insert", "service", "x", 1);
  connected(false);
  connected(true);

  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", "1"}, {"epoch", "e2"}}));
  EXPECT_EQ(sink_.services.size(), 3U);  // nothing is removed before the end
  end(1, "e2");                          // late, of the old connection
  EXPECT_EQ(sink_.services.size(), 3U);
  EXPECT_FALSE(module_->status().synced);

  begin(false, "e2");
  change("insert", "service", "y", 2);
  end(2, "e2");
  EXPECT_EQ(sink_.services, (std::set<std::string>{"default/x", "default/y"}));
  EXPECT_TRUE(sink_.slices.empty());
  connected(false);
  connected(true);
  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", "2"}, {"epoch", "e2"}}));
}

TEST_F(MeshModuleTest, APartOfAFullSyncIsNoPositionForTheNextStart) {
  full_sync();
  connected(false);
  connected(true);
  begin(true, "e2");
  change("insert", "service", "x", 7);
  boot();
  connected(true);
  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", "3"}, {"epoch", "e1"}}));
}

TEST_F(MeshModuleTest, WhatTheDiskDidNotTakeIsAskedForAgainAfterARestart) {
  full_sync();
  {
    auto db = store::Database::open(dir_.path() + "/meta.db");
    ASSERT_TRUE(db);
    ASSERT_TRUE(
        (*db)->exec("CREATE TRIGGER no BEFORE INSERT ON meta WHEN NEW.key = 'default/service/bad' "
                    "BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"));
  }
  change("insert", "service", "bad", 4);
  change("insert", "service", "good", 5);  // as if all were well
  boot();
  connected(true);
  EXPECT_EQ(last_sync_request(), (Json{{"resourceVersion", ""}, {"epoch", ""}}));
}

TEST_F(MeshModuleTest, AnUnansweredSyncIsAskedForAgain) {
  connected(true);
  const size_t before = hub_.sent.size();
  clock_.advance(seconds(31));
  turn();
  EXPECT_EQ(hub_.sent.size(), before + 1);
  begin(true);
  end(0);
  clock_.advance(seconds(300));
  turn();
  EXPECT_EQ(hub_.sent.size(), before + 1);
}

TEST_F(MeshModuleTest, ChangesOutsideOfASyncAreNotTaken) {
  change("insert", "service", "a", 1);
  EXPECT_TRUE(sink_.services.empty());
  connected(true);
  change("insert", "service", "a", 1);
  EXPECT_TRUE(sink_.services.empty());
}

TEST_F(MeshModuleTest, ABadObjectKeepsTheLastGoodOne) {
  full_sync();
  deliver(
      bus::make_message("meshcontroller", "mesh", "update", "default/service/a", R"({"spec":5})"));
  deliver(bus::make_message("meshcontroller", "mesh", "update", "default/service/a",
                            "{\"metadata\":{\"name\":\"z\",\"namespace\":\"default\"}}"));
  deliver(bus::make_message("meshcontroller", "mesh", "update", "default/service/", "{}"));
  deliver(bus::make_message("meshcontroller", "mesh", "response", "sync/begin", "[]"));
  EXPECT_EQ(module_->status().bad_objects, 2U);
  boot();
  EXPECT_EQ(sink_.services.size(), 2U);
}

TEST_F(MeshModuleTest, SignalsGoBothWays) {
  connected(true);
  hub_.sent.clear();
  module_->send_signal("edge-2", R"({"c":1})");
  turn();
  ASSERT_EQ(hub_.sent.size(), 1U);
  EXPECT_EQ(hub_.sent[0].group, "mesh");
  EXPECT_EQ(hub_.sent[0].operation, "signal");
  EXPECT_EQ(hub_.sent[0].resource, "peer/edge-2");
  EXPECT_EQ(hub_.sent[0].content, R"({"c":1})");

  deliver(bus::make_message("", "mesh", "signal", "peer/edge-3", R"({"d":2})"));
  deliver(bus::make_message("", "mesh", "error", "peer/edge-2", R"({"reason":"gone"})"));
  ASSERT_EQ(sink_.signals.size(), 1U);
  EXPECT_EQ(sink_.signals[0], (std::pair<std::string, std::string>("edge-3", R"({"d":2})")));
  ASSERT_EQ(sink_.errors.size(), 1U);
  EXPECT_EQ(sink_.errors[0], (std::pair<std::string, std::string>("edge-2", "gone")));
}

TEST_F(MeshModuleTest, ASignalWithoutTheCloudFailsInALaterTurn) {
  module_->send_signal("edge-2", "{}");
  EXPECT_TRUE(sink_.errors.empty());
  turn();
  ASSERT_EQ(sink_.errors.size(), 1U);
  EXPECT_EQ(sink_.errors[0].second, "no connection to the cloud");
}

TEST_F(MeshModuleTest, NodeInfoIsSentOnceAConnectionAndWhenItChanges) {
  const auto infos = [this] {
    size_t n = 0;
    for (const auto& m : hub_.sent) n += m.resource == "node" ? 1 : 0;
    return n;
  };
  module_->set_node_info({.addresses = {"10.0.0.1:15008"}, .zone = "z", .direct_port = 15008});
  connected(true);
  EXPECT_EQ(infos(), 1U);
  module_->set_node_info({.addresses = {"10.0.0.1:15008"}, .zone = "z", .direct_port = 15008});
  turn();
  EXPECT_EQ(infos(), 1U);
  module_->set_node_info({.addresses = {"10.0.0.2:15008"}, .zone = "z", .direct_port = 15008});
  turn();
  ASSERT_EQ(infos(), 2U);
  const Json content = Json::parse(hub_.sent.back().content);
  EXPECT_EQ(content["name"], "edge-1");
  EXPECT_EQ(content["addresses"][0], "10.0.0.2:15008");
  connected(false);
  connected(true);
  EXPECT_EQ(infos(), 3U);
}

TEST_F(MeshModuleTest, PeersSurviveARestart) {
  const std::vector<StoredPeer> peers{{"edge-2", {*SockAddr::parse("10.0.0.2:15008")}},
                                      {"edge-3", {}}};
  module_->persist_peers(peers);
  turn();
  boot();
  EXPECT_EQ(module_->known_peers(), peers);
  module_->persist_peers({peers[1]});
  turn();
  boot();
  EXPECT_EQ(module_->known_peers(), std::vector<StoredPeer>{peers[1]});
}

TEST(MeshConfigTest, WrongTypesAreRefused) {
  EXPECT_TRUE(parse_mesh_config("{}"));
  const auto revoked = parse_mesh_config(R"({"revoked":[{"node":"a","before":17,"more":1}]})");
  ASSERT_TRUE(revoked);
  ASSERT_EQ(revoked->revoked.size(), 1U);
  EXPECT_EQ(revoked->revoked[0].node, "a");
  EXPECT_EQ(revoked->revoked[0].before, 17);
  EXPECT_FALSE(parse_mesh_config(R"({"revoked":[{"node":"a"}]})"));
  EXPECT_EQ(parse_mesh_config("{}")->cluster_domain, "cluster.local");
  for (const char* bad : {"", "[]", R"({"trustDomain":1})", R"({"serviceCidrs":["x"]})",
                          R"({"stun":[1]})", R"({"turn":[]})", R"({"turn":{"port":0}})",
                          R"({"turn":{"port":70000}})", R"({"turn":{"expires":"x"}})"})
    EXPECT_FALSE(parse_mesh_config(bad)) << bad;
}

}  // namespace
}  // namespace edgemesh::agent
