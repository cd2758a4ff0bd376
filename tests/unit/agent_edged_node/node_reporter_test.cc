#include "agent/edged/node/node_reporter.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/support/fake_cri.h"
#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using std::chrono::minutes;
using std::chrono::seconds;

NodeFacts good() {
  NodeFacts out;
  out.cpu_milli = 4000;
  out.memory_bytes = int64_t(8) << 30;
  out.memory_free = int64_t(4) << 30;
  out.disk_bytes = int64_t(100) << 30;
  out.disk_free = int64_t(50) << 30;
  out.pids = 32768;
  out.pids_used = 100;
  out.kernel = "6.1.0";
  out.arch = "amd64";
  return out;
}

Json status_of(const NodeFacts& facts, bool memory_pressure, int64_t now, const Json* before) {
  const std::vector<NodeImage> none;
  NodeStatusInput in{.facts = facts, .runtime = "fake://1.0", .images = none};
  in.memory_pressure = memory_pressure;
  in.now_s = now;
  in.previous = before;
  return make_node_status(in);
}

Json condition(const Json& status, const char* type) {
  for (const Json& one : status["conditions"]) {
    if (one["type"] == type) return one;
  }
  return {};
}

TEST(NodeFacts, AreReadFromTheKernelsFiles) {
  test::TempDir dir;
  for (const char* folder : {"proc/sys/kernel/random", "etc", "sys/class/dmi/id"})
    std::filesystem::create_directories(dir.file(folder));
  const auto write = [&](const char* file, const char* text) {
    std::ofstream(dir.file(file)) << text;
  };
  write("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
  write("proc/loadavg", "0.10 0.20 0.30 2/345 6789\n");
  write("proc/sys/kernel/pid_max", "4194304\n");
  write("proc/sys/kernel/random/boot_id", "boot-1\n");
  write("etc/machine-id", "machine-1\n");
  write("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
  const NodeFacts facts = read_facts(dir.path(), dir.path());
  EXPECT_EQ(facts.memory_bytes, 2048 * 1024);
  EXPECT_EQ(facts.memory_free, 1024 * 1024);
  EXPECT_EQ(facts.pids, 4194304);
  EXPECT_EQ(facts.pids_used, 345);
  EXPECT_EQ(facts.boot_id, "boot-1");
  EXPECT_EQ(facts.machine_id, "machine-1");
  EXPECT_EQ(facts.system_uuid, "machine-1");  // there is no other
  EXPECT_EQ(facts.os_image, "Debian GNU/Linux 12 (bookworm)");
  EXPECT_GT(facts.cpu_milli, 0);
  EXPECT_GT(facts.disk_bytes, 0);
  const NodeFacts nothing = read_facts("/none", dir.file("none"));
  EXPECT_EQ(nothing.memory_bytes, 0);
  EXPECT_FALSE(memory_short(nothing) || disk_short(nothing) || pids_short(nothing));
}

TEST(NodeFacts, Thresholds) {
  NodeFacts facts = good();
  EXPECT_FALSE(memory_short(facts) || disk_short(facts) || pids_short(facts));
  facts.memory_free = int64_t(99) << 20;
  EXPECT_TRUE(memory_short(facts));
  facts.disk_free = int64_t(9) << 30;
  EXPECT_TRUE(disk_short(facts));
  facts.pids_used = 32000;
  EXPECT_TRUE(pids_short(facts));
  NodeFacts inodes = good();
  inodes.inodes = 1000;
  inodes.inodes_free = 49;
  EXPECT_TRUE(disk_short(inodes));
}

TEST(NodeStatus, SaysWhatPodsMayUse) {
  const Json status = status_of(good(), false, 100, nullptr);
  EXPECT_EQ(status["capacity"]["cpu"], "4");
  EXPECT_EQ(status["capacity"]["memory"], "8388608Ki");
  EXPECT_EQ(status["allocatable"]["memory"], "8286208Ki");
  EXPECT_EQ(status["allocatable"]["pods"], "110");
  EXPECT_EQ(status["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
  EXPECT_EQ(status["nodeInfo"]["architecture"], "amd64");
  EXPECT_EQ(condition(status, "MemoryPressure")["status"], "False");
  EXPECT_EQ(condition(status, "Ready"), Json());  // the cloud's to say
}

TEST(NodeStatus, TimesOfConditionsHold) {
  const Json first = status_of(good(), false, 100, nullptr);
  const Json second = status_of(good(), false, 200, &first);
  EXPECT_EQ(condition(second, "MemoryPressure")["lastTransitionTime"], "1970-01-01T00:01:40Z");
  EXPECT_EQ(condition(second, "MemoryPressure")["lastHeartbeatTime"], "1970-01-01T00:03:20Z");
  const Json third = status_of(good(), true, 300, &second);
  EXPECT_EQ(condition(third, "MemoryPressure")["lastTransitionTime"], "1970-01-01T00:05:00Z");
  EXPECT_TRUE(same_node_status(first, second));
  EXPECT_FALSE(same_node_status(second, third));
  Json newer = first;
  newer["nodeInfo"]["swap"] = Json::object();
  newer["addresses"] = {1};
  EXPECT_TRUE(same_node_status(newer, first));
  EXPECT_FALSE(same_node_status(Json::object(), first));
}

TEST(NodeStatus, ImagesAreBounded) {
  std::vector<NodeImage> images;
  for (int i = 0; i < 60; ++i) images.push_back({std::vector<std::string>(7, "x"), i});
  images.push_back({{}, 1000});  // without a name: nobody can use it
  const NodeFacts facts = good();
  const Json status = make_node_status({.facts = facts, .runtime = "", .images = images});
  EXPECT_LE(status["images"].size(), 50u);
  EXPECT_EQ(status["images"][0]["sizeBytes"], 59);
  EXPECT_EQ(status["images"][0]["names"].size(), 5u);
}

class NodeReporterTest : public agent::MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    open_store();
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
    runtime_ = std::make_unique<test::FakeRuntime>(*loop_);
    outbox_ = std::make_unique<agent::Outbox>(*loop_, *store_, registry_);
    reporter_ = std::make_unique<NodeReporter>(*loop_, *runtime_, *outbox_, "edge-1",
                                               [this] { return facts_; });
    reporter_->on_objects_loaded();
    ASSERT_TRUE(outbox_->start(*bus_));
    outbox_->on_connection(true);
  }
  void TearDown() override {
    reporter_.reset();
    outbox_->stop();
    bus_->stop();
  }
  void pass(Duration time) {
    clock_.advance(time);
    settle();
  }
  // What was sent since, each answered.
  std::vector<Json> sent() {
    std::vector<Json> out;
    for (const bus::Message& message : take()) {
      EXPECT_EQ(message.resource, "default/nodestatus/edge-1");
      EXPECT_EQ(message.operation, "update");
      out.push_back(Json::parse(message.content)["Status"]);
      bus::Message reply = bus::reply_to(message, "\"OK\"");
      reply.operation = "response";
      bus_->respond(std::move(reply));
    }
    settle();
    return out;
  }
  void cloud_says(const Json& status) {
    const Json node{{"metadata", {{"name", "edge-1"}, {"uid", "n1"}}}, {"status", status}};
    reporter_->on_object({"node", "", "edge-1"}, node.dump());
  }

  NodeFacts facts_ = good();
  std::unique_ptr<test::FakeRuntime> runtime_;
  std::unique_ptr<agent::Outbox> outbox_;
  std::unique_ptr<NodeReporter> reporter_;
};

TEST_F(NodeReporterTest, SendsAtOnceThenWhatIsNewAndNowAndThen) {
  runtime_->add_image("web:1", 5000);
  settle();
  const auto first = sent();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0]["allocatable"]["pods"], "110");
  EXPECT_EQ(first[0]["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
  EXPECT_EQ(first[0]["images"].size(), 1u);

  pass(seconds(10));
  EXPECT_TRUE(sent().empty());
  runtime_->add_image("db:1", 6000);
  pass(seconds(10));
  EXPECT_EQ(sent().size(), 1u);
  pass(minutes(5));
  EXPECT_EQ(sent().size(), 1u);
}

TEST_F(NodeReporterTest, APressureHoldsForAWhile) {
  ASSERT_EQ(sent().size(), 1u);
  facts_.memory_free = 0;
  pass(seconds(10));
  auto now = sent();
  ASSERT_EQ(now.size(), 1u);
  EXPECT_EQ(condition(now[0], "MemoryPressure")["status"], "True");
  facts_ = good();
  pass(minutes(4));
  EXPECT_TRUE(sent().empty());
  pass(minutes(1));
  now = sent();
  ASSERT_EQ(now.size(), 1u);
  EXPECT_EQ(condition(now[0], "MemoryPressure")["status"], "False");
}

TEST_F(NodeReporterTest, WhatTheCloudLostIsSentAgain) {
  const auto first = sent();
  ASSERT_EQ(first.size(), 1u);
  cloud_says(first[0]);
  pass(seconds(10));
  EXPECT_TRUE(sent().empty());
  cloud_says(Json::object());  // the Node was made anew
  pass(seconds(10));
  ASSERT_EQ(sent().size(), 1u);
  // It never takes it: that ends.
  size_t more = 0;
  for (int i = 0; i < 20; ++i) {
    pass(seconds(10));
    more += sent().size();
  }
  EXPECT_EQ(more, 5u);
  cloud_says(first[0]);
  pass(seconds(10));
  EXPECT_TRUE(sent().empty());
}

TEST_F(NodeReporterTest, TellsOfTheNodeWithoutARuntime) {
  ASSERT_EQ(sent().size(), 1u);
  for (int i = 0; i < 40; ++i) runtime_->fail_next("Version", {ErrorCode::kUnavailable, "away", 0});
  pass(seconds(10));
  EXPECT_TRUE(sent().empty());  // what it was stays
  facts_.disk_free = 0;
  pass(seconds(10));
  const auto now = sent();
  ASSERT_EQ(now.size(), 1u);
  EXPECT_EQ(now[0]["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
  EXPECT_EQ(condition(now[0], "DiskPressure")["status"], "True");
}

}  // namespace
}  // namespace edgemesh::edged
