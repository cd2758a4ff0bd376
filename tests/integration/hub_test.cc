// The control channel end to end: bootstrap, hub and controllers with nodes over loopback and TLS.
#include "cloud/hub.h"

#include <fstream>

#include "tests/integration/cloud_fixture.h"

namespace edgemesh {
namespace {

using Json = nlohmann::json;
using test::milliseconds;
using test::seconds;
using test::TestCloud;
using test::TestNode;

class HubTest : public ::testing::Test {
 protected:
  void SetUp() override { loop_ = std::move(*io::Loop::create()); }
  TestCloud& cloud(cloud::HubOptions options = {}) {
    if (!cloud_) cloud_ = std::make_unique<TestCloud>(*loop_, options);
    return *cloud_;
  }
  // A node that has joined and is connected.
  std::unique_ptr<TestNode> node(const std::string& name) {
    auto node = std::make_unique<TestNode>(*loop_, name);
    EXPECT_EQ(node->join(cloud(), cloud().token()), 200) << node->error;
    EXPECT_TRUE(node->connect(cloud())) << node->error;
    return node;
  }
  static Json service(const std::string& name, const std::string& padding = {}) {
    return {
        {"metadata", {{"namespace", "default"}, {"name", name}, {"annotations", {{"p", padding}}}}},
        {"spec", {{"clusterIP", "10.96.0.1"}}}};
  }
  // Everything from sync/begin to sync/end; the keys of the objects in between.
  struct Sync {
    bool full = false;
    std::vector<std::string> keys;
    std::string epoch, version;
  };
  static Sync sync(TestNode& node, const std::string& epoch = "", const std::string& version = "") {
    Sync out;
    node.send("mesh", "get", "sync", {{"epoch", epoch}, {"resourceVersion", version}});
    const auto begin = node.next("sync/begin");
    EXPECT_TRUE(begin);
    if (!begin) return out;
    out.full = Json::parse(begin->content)["full"];
    for (;;) {
      const auto message = node.next();
      EXPECT_TRUE(message);
      if (!message) return out;
      if (message->resource == "sync/end") {
        const Json end = Json::parse(message->content);
        out.epoch = end["epoch"];
        out.version = end["resourceVersion"];
        return out;
      }
      out.keys.push_back(message->operation + " " + message->resource);
    }
  }

  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<TestCloud> cloud_;
};

TEST_F(HubTest, ANodeJoinsWithATokenAndConnects) {
  TestNode node(*loop_, "edge-1");
  std::string ca;

  ASSERT_EQ(node.fetch_ca(cloud().bootstrap->local_addr(), &ca), 200) << node.error;
  EXPECT_EQ(tls::sha256_hex(ca), cloud().token().substr(0, 64));
  ASSERT_EQ(node.join(cloud(), cloud().token()), 200) << node.error;
  ASSERT_TRUE(node.connect(cloud())) << node.error;

  EXPECT_EQ(cloud().hub->sessions(), 1U);
  const auto config = node.next("config");
  ASSERT_TRUE(config);
  EXPECT_EQ(Json::parse(config->content)["trustDomain"], "edgemesh.local");
  // Renewed with the certificate alone, and the new one is good too.
  EXPECT_EQ(node.renew(cloud()), 200) << node.error;
  EXPECT_TRUE(node.connect(cloud())) << node.error;
}

TEST_F(HubTest, AWrongTokenIsRefused) {
  TestNode node(*loop_, "edge-1");
  std::string token = cloud().token();
  token[token.rfind('.') + 3] ^= 1;

  EXPECT_EQ(node.join(cloud(), token), 401);
  EXPECT_NE(node.error.find("token validation failure"), std::string::npos) << node.error;
}

TEST_F(HubTest, ACertificateOfAnotherCaIsRefused) {
  auto loop = std::move(*io::Loop::create());
  TestCloud other(*loop_);
  TestNode node(*loop_, "edge-1");
  ASSERT_EQ(node.join(other, other.token()), 200);
  tls::ContextOptions identity = node.identity(other);
  identity.ca_pem = cloud().ca->cert_pem();

  EXPECT_FALSE(node.connect(cloud(), identity, "edge-1"));
  EXPECT_EQ(cloud().hub->sessions(), 0U);
}

TEST_F(HubTest, NoCertificateIsRefused) {
  TestNode node(*loop_, "edge-1");
  tls::ContextOptions nobody;
  nobody.ca_pem = cloud().ca->cert_pem();

  EXPECT_FALSE(node.connect(cloud(), nobody, "edge-1"));
}

TEST_F(HubTest, AnotherNodesNameIsRefused) {
  TestNode node(*loop_, "edge-1");
  ASSERT_EQ(node.join(cloud(), cloud().token()), 200);

  EXPECT_FALSE(node.connect(cloud(), "edge-2"));
  EXPECT_NE(node.error.find("403"), std::string::npos) << node.error;
  EXPECT_EQ(cloud().hub->sessions(), 0U);
}

TEST_F(HubTest, AnAdministratorsCertificateIsNoNode) {
  TestNode node(*loop_, "kubernetes-admin");
  const auto admin = TestCloud::take(cloud().ca->issue_admin());
  tls::ContextOptions identity;
  identity.ca_pem = cloud().ca->cert_pem();
  identity.cert_pem = admin.cert_pem;
  identity.key_pem = admin.key_pem;

  EXPECT_FALSE(node.connect(cloud(), identity, "edge-1"));
  EXPECT_NE(node.error.find("403"), std::string::npos) << node.error;
}

TEST_F(HubTest, ASecondSessionReplacesTheFirst) {
  auto first = node("edge-1");
  TestNode second(*loop_, "edge-1");
  second.key_pem = first->key_pem;
  second.cert_pem = first->cert_pem;

  ASSERT_TRUE(second.connect(cloud()));
  EXPECT_TRUE(loop_->run_until([&] { return first->closed; }, seconds(5)));
  EXPECT_EQ(first->close_code, 1008);
  EXPECT_EQ(cloud().hub->sessions(), 1U);
  second.send("meta", "query", "null/node/edge-1");
  EXPECT_TRUE(second.next("null/node/edge-1"));
}

TEST_F(HubTest, AnswersNodeAndLeaseRequestsFromTheApi) {
  auto edge = node("edge-1");

  const std::string id =
      edge->send("meta", "insert", "null/node/edge-1",
                 {{"metadata",
                   {{"name", "edge-1"},
                    {"labels", {{"node-role.kubernetes.io/edge", ""}}},
                    {"annotations", {{cloud::kCertificateAnnotation, "mine"}}}}},
                  {"status", {{"capacity", {{"cpu", "4"}}}}}});
  const auto made = edge->next("null/node/edge-1");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->parent_id, id);
  EXPECT_TRUE(Json::parse(made->content)["Err"].is_null()) << made->content;
  // The Node was there since the certificate was issued; now it is what the node says of itself.
  const Json* object = cloud().kube.find(kube::kNodes, "", "edge-1");
  ASSERT_NE(object, nullptr);
  EXPECT_TRUE((*object)["metadata"]["labels"].contains("node-role.kubernetes.io/edge"));
  EXPECT_EQ((*object)["status"]["capacity"]["cpu"], "4");
  EXPECT_NE((*object)["metadata"]["annotations"][cloud::kCertificateAnnotation], "mine");
  edge->send("meta", "query", "kube-node-lease/lease/edge-1");
  const auto lease = edge->next("kube-node-lease/lease/edge-1");
  ASSERT_TRUE(lease);
  EXPECT_EQ(Json::parse(lease->content)["Err"]["ErrStatus"]["code"], 404);
}

TEST_F(HubTest, SyncsInFullThenByChangesThenFromWhereItWas) {
  cloud().kube.put(kube::kServices, service("a"));
  cloud().kube.put(kube::kServices, service("b"));
  auto edge = node("edge-1");

  const Sync full = sync(*edge);
  EXPECT_TRUE(full.full);
  EXPECT_EQ(full.keys,
            (std::vector<std::string>{"insert default/service/a", "insert default/service/b"}));

  cloud().kube.put(kube::kServices, service("a", "changed"));
  const auto change = edge->next();
  ASSERT_TRUE(change);
  EXPECT_EQ(change->resource, "default/service/a");
  EXPECT_EQ(change->operation, "update");

  edge->disconnect();
  ASSERT_TRUE(loop_->run_until([&] { return cloud().hub->sessions() == 0; }, seconds(5)));
  cloud().kube.erase(kube::kServices, "default", "b");
  cloud().kube.put(kube::kServices, service("c"));
  ASSERT_TRUE(edge->connect(cloud()));
  const Sync delta = sync(*edge, full.epoch, change->resource_version);
  EXPECT_FALSE(delta.full);
  EXPECT_EQ(delta.keys,
            (std::vector<std::string>{"delete default/service/b", "insert default/service/c"}));
  const Sync foreign = sync(*edge, "another epoch", delta.version);
  EXPECT_TRUE(foreign.full);
  EXPECT_EQ(foreign.keys.size(), 2U);
}

TEST_F(HubTest, PassesSignalsWithTheSendersTrueName) {
  auto one = node("edge-1");
  auto two = node("edge-2");

  one->send("mesh", "signal", "peer/edge-2", {{"from", "edge-3"}, {"candidate", "x"}});
  const auto got = two->next("peer/edge-1");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->operation, "signal");
  EXPECT_EQ(Json::parse(got->content)["candidate"], "x");
  one->send("mesh", "signal", "peer/edge-9", Json::object());
  const auto error = one->next("peer/edge-9");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->operation, "error");
  EXPECT_EQ(Json::parse(error->content)["reason"], "node edge-9 is not connected");
}

TEST_F(HubTest, NoticesADeadNode) {
  auto edge = node("edge-1");
  edge->socket->pause_reading();  // takes nothing and answers no ping

  EXPECT_TRUE(loop_->run_until([&] { return cloud().hub->sessions() == 0; }, seconds(6)));
}

TEST_F(HubTest, KeepsANodeThatAnswersPings) {
  cloud::HubOptions options;
  options.ping_interval = milliseconds(100);
  options.dead_after = milliseconds(1000);
  cloud(options);
  auto edge = node("edge-1");

  EXPECT_FALSE(loop_->run_until([&] { return edge->closed; }, milliseconds(2500)));
  EXPECT_GE(cloud().hub->nodes()[0].rtt_us, 0);
}

TEST_F(HubTest, BadInputEndsOneConnectionOnly) {
  int count = 0;
  auto good = node("edge-1");
  for (const char* bad :
       {"{", "[]", "null", "{\"header\":1,\"route\":{},\"content\":null}", "\"x\""}) {
    auto edge = node("bad-" + std::to_string(++count));  // a name is given out once
    edge->send_text(bad);
    EXPECT_TRUE(loop_->run_until([&] { return edge->closed; }, seconds(5))) << bad;
  }
  EXPECT_TRUE(cloud().hub->connected("edge-1"));
  good->send("meta", "query", "null/node/edge-1");
  EXPECT_TRUE(good->next("null/node/edge-1"));
}

TEST_F(HubTest, ASlowNodeDoesNotDelayTheOthersAndCatchesUp) {
  cloud::HubOptions options;
  options.max_queued_bytes = 256 << 10;
  for (int i = 0; i < 500; ++i) {
    cloud(options).kube.put(kube::kServices,
                            service("s" + std::to_string(i), std::string(20'000, 'x')));
  }
  auto slow = node("edge-1");
  auto fast = node("edge-2");
  ASSERT_TRUE(slow->next("config"));
  slow->send("mesh", "get", "sync", Json::object());
  ASSERT_TRUE(slow->next("sync/begin"));
  slow->socket->pause_reading();

  EXPECT_EQ(sync(*fast).keys.size(), 500U);
  // Ten megabytes are on their way to the slow one, but no queue of that size is held for it.
  for (const auto& status : cloud().hub->nodes()) EXPECT_LT(status.queued_bytes, 512U << 10);
  for (int i = 0; i < 500; ++i)
    cloud().kube.put(kube::kServices, service("s" + std::to_string(i), "y"));
  slow->socket->resume_reading();
  std::map<std::string, std::string> held;
  int ends = 0;
  while (ends == 0 || held.size() < 500 ||
         std::any_of(held.begin(), held.end(),
                     [](const auto& one) { return one.second.size() > 1000; })) {
    const auto message = slow->next();
    ASSERT_TRUE(message) << held.size() << " " << ends;
    if (message->resource == "sync/end") ++ends;
    if (message->resource.starts_with("default/")) held[message->resource] = message->content;
  }
  EXPECT_EQ(ends, 1);
}

TEST_F(HubTest, CutsANodeThatDoesNotTakeItsMessages) {
  cloud::HubOptions options;
  options.max_queued_bytes = 64 << 10;
  cloud(options);
  auto deaf = node("edge-1");
  auto loud = node("edge-2");
  deaf->socket->pause_reading();
  const std::string text(30'000, 'x');

  // The kernel's buffers take some megabytes first.
  for (int i = 0; i < 900 && cloud().hub->connected("edge-1"); ++i) {
    loud->send("mesh", "signal", "peer/edge-1", text);
    loop_->run_once(milliseconds(1));
  }
  EXPECT_TRUE(loop_->run_until([&] { return !cloud().hub->connected("edge-1"); }, seconds(6)));
  EXPECT_TRUE(cloud().hub->connected("edge-2"));
}

TEST_F(HubTest, RefusesNodesBeyondTheLimit) {
  cloud::HubOptions options;
  options.max_nodes = 1;
  cloud(options);
  auto first = node("edge-1");
  TestNode second(*loop_, "edge-2");
  ASSERT_EQ(second.join(cloud(), cloud().token()), 200);

  EXPECT_FALSE(second.connect(cloud()));
  EXPECT_NE(second.error.find("503"), std::string::npos) << second.error;
  EXPECT_TRUE(cloud().hub->connected("edge-1"));
}

TEST_F(HubTest, SaysGoodbyeWhenItGoesAway) {
  auto edge = node("edge-1");

  cloud().hub->drain();

  EXPECT_TRUE(loop_->run_until([&] { return edge->closed; }, seconds(5)));
  EXPECT_EQ(edge->close_code, 1001);
  EXPECT_TRUE(loop_->run_until([&] { return cloud().hub->closing() == 0; }, seconds(5)));
}

// Every frame that KubeEdge's edge sent to its own cloud is taken, and the connection stays.
TEST_F(HubTest, TakesTheRecordedFramesOfKubeEdgesEdge) {
  auto edge = node("edge-1");
  std::ifstream file(std::string(EDGEMESH_SOURCE_DIR) + "/tests/data/kubeedge/frames.jsonl");
  std::string line;
  int sent = 0;
  while (std::getline(file, line)) {
    const Json frame = Json::parse(line, nullptr, false);
    if (!frame.contains("text") || frame["dir"] != "E>C" || frame.value("op", 0) != 1) continue;
    edge->send_text(frame["text"]);
    ++sent;
  }
  EXPECT_GT(sent, 50);
  edge->send("", "ping", "/control/ping");
  const auto ack = edge->next("/control/ping");
  ASSERT_TRUE(ack);
  EXPECT_EQ(ack->content, "\"ack\"");
  EXPECT_EQ(cloud().hub->nodes()[0].messages_in, static_cast<uint64_t>(sent + 1));
}

TEST_F(HubTest, KeepsTheNodeObjectOfAnAgent) {
  auto edge = node("edge-1");

  edge->send("mesh", "update", "node", {{"addresses", {"10.0.0.7"}}, {"zone", "z1"}});

  // The Node is there since the certificate was issued; its status comes with the report.
  const auto reported = [&] {
    const Json* object = cloud().kube.find(kube::kNodes, "", "edge-1");
    return object != nullptr && object->contains("status");
  };
  ASSERT_TRUE(loop_->run_until(reported, seconds(5)));
  const Json& object = *cloud().kube.find(kube::kNodes, "", "edge-1");
  EXPECT_EQ(object["status"]["conditions"][0]["status"], "True");
  EXPECT_TRUE(object["metadata"]["annotations"].contains(cloud::kCertificateAnnotation));
}

TEST_F(HubTest, TheCertificateOfADeletedNodeCountsNoMore) {
  auto deleted = node("edge-1");
  auto other = node("edge-2");
  ASSERT_TRUE(other->next("config"));

  cloud().kube.erase(kube::kNodes, "", "edge-1");

  ASSERT_TRUE(loop_->run_until([&] { return deleted->closed; }, seconds(5)));
  EXPECT_EQ(deleted->close_code, 1008);
  EXPECT_NE(deleted->close_reason.find("revoked"), std::string::npos) << deleted->close_reason;
  EXPECT_FALSE(deleted->connect(cloud()));
  EXPECT_NE(deleted->error.find("403"), std::string::npos) << deleted->error;
  EXPECT_NE(deleted->error.find("join again"), std::string::npos) << deleted->error;
  EXPECT_EQ(deleted->renew(cloud()), 401);
  EXPECT_NE(deleted->error.find("revoked"), std::string::npos) << deleted->error;
  // The others are told, at once and when they connect.
  const auto change = other->next("revoked");
  ASSERT_TRUE(change);
  const Json revoked = Json::parse(change->content)["changed"];
  ASSERT_EQ(revoked.size(), 1U);
  EXPECT_EQ(revoked[0]["node"], "edge-1");
  const auto later = node("edge-3");
  const auto config = later->next("config");
  ASSERT_TRUE(config);
  EXPECT_EQ(Json::parse(config->content)["revoked"], revoked);
  // With a token it is welcome again: also in the second of its deletion.
  TestNode again(*loop_, "edge-1");
  ASSERT_EQ(again.join(cloud(), cloud().token()), 200) << again.error;
  EXPECT_TRUE(again.connect(cloud())) << again.error;
  EXPECT_EQ(again.renew(cloud()), 200) << again.error;
  EXPECT_TRUE(again.connect(cloud())) << again.error;
  EXPECT_FALSE(deleted->connect(cloud()));
}

TEST_F(HubTest, TheCertificateOfAReplacedNodeCountsNoMore) {
  auto before = node("edge-1");
  TestNode after(*loop_, "edge-1");
  const std::string token = cloud().ca->new_token(std::chrono::hours(1), {.node = "edge-1", .replace = true});

  ASSERT_EQ(after.join(cloud(), token), 200) << after.error;

  ASSERT_TRUE(loop_->run_until([&] { return before->closed; }, seconds(5)));
  EXPECT_FALSE(before->connect(cloud()));
  EXPECT_EQ(before->renew(cloud()), 401);
  EXPECT_TRUE(after.connect(cloud())) << after.error;
  EXPECT_EQ(after.renew(cloud()), 200) << after.error;
}

}  // namespace
}  // namespace edgemesh
