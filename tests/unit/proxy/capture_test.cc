#include "proxy/capture.h"

#include <gtest/gtest.h>

#include <fstream>

#include "fake_host.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::proxy {
namespace {

class CaptureTest : public ::testing::Test {
 protected:
  CaptureTest() : loop(std::move(*io::Loop::create())) {
    config.service_cidrs = {*Cidr::parse("10.96.0.0/12"), *Cidr::parse("fd00:96::/112")};
    config.dns_addresses = {*IpAddr::parse("169.254.96.16")};
    config.bridge_settings = bridges.path();
    config.has_bridge = [this] { return has_bridge; };
  }
  void set_bridge(const std::string& name, char value) {
    std::ofstream(bridges.file(name)) << value << "\n";
  }
  std::unique_ptr<Capture> install() {
    auto capture = Capture::install(*loop, host, config);
    EXPECT_TRUE(capture) << (capture ? "" : capture.error().message);
    return capture ? std::move(*capture) : nullptr;
  }

  std::unique_ptr<io::Loop> loop;
  test::TempDir bridges;  // nothing: the kernel has no such settings
  bool has_bridge = true;
  FakeHost host;
  CaptureConfig config;
};

TEST_F(CaptureTest, InstallsBeforeTheRulesOfOthersAndRemovesAllAtTheEnd) {
  host.chains["4"]["nat"]["PREROUTING"] = {"-j KUBE-SERVICES"};
  auto before = host.chains;

  auto capture = install();
  EXPECT_EQ(capture->mode(), CaptureMode::kTproxy);
  EXPECT_EQ(host.chains["4"]["nat"]["PREROUTING"],
            (std::vector<std::string>{"-j EDGEMESH_PREROUTING", "-j KUBE-SERVICES"}));
  EXPECT_EQ(host.chains["6"]["mangle"]["OUTPUT"].at(0), "-j EDGEMESH_OUTPUT");
  EXPECT_TRUE(host.rules.contains("-4 97:\tfrom all fwmark 0x4d46 lookup 19782"));
  // A local client's source is an address that stays when the uplink's goes.
  EXPECT_TRUE(host.rules.contains(
      "-4 98:\tfrom all to 10.96.0.0/12 fwmark 0/0xffffffff ipproto tcp lookup 19783"));
  EXPECT_TRUE(host.routes.contains("-6 19782 local default dev lo"));
  EXPECT_TRUE(host.addresses.contains("169.254.96.16/32"));

  capture.reset();
  EXPECT_EQ(host.chains, before);
  EXPECT_TRUE(host.rules.empty());
  EXPECT_TRUE(host.routes.empty());
  EXPECT_TRUE(host.links.empty());
  EXPECT_TRUE(host.addresses.empty());
}

TEST_F(CaptureTest, GivesBothFamiliesTheirDnsAddressAndLastResort) {
  config.dns_addresses.push_back(*IpAddr::parse("fd00:96:1::16"));
  auto capture = install();

  EXPECT_TRUE(host.addresses.contains("169.254.96.16/32"));
  EXPECT_TRUE(host.addresses.contains("fd00:96:1::16/128"));
  EXPECT_TRUE(host.rules.contains(
      "-6 98:\tfrom all to fd00:96::/112 fwmark 0/0xffffffff ipproto tcp lookup 19783"));
  EXPECT_TRUE(host.rules.contains("-6 32768:\tfrom all to fd00:96::/112 lookup 19783"));
  EXPECT_TRUE(host.routes.contains("-6 19783 default dev edgemesh0 src fd00:96:1::16"));
  EXPECT_TRUE(host.routes.contains("-4 19783 default dev edgemesh0 src 169.254.96.16"));
  int changes = host.changes;
  ASSERT_TRUE(capture->verify());
  EXPECT_EQ(host.changes, changes);

  capture.reset();
  EXPECT_TRUE(host.rules.empty());
  EXPECT_TRUE(host.routes.empty());
  EXPECT_TRUE(host.addresses.empty());
}

TEST_F(CaptureTest, BothDnsAddressesLeaveLoopback) {
  host.dummy = false;
  config.dns_addresses.push_back(*IpAddr::parse("fd00:96:1::16"));
  auto capture = install();
  EXPECT_EQ(host.addresses.size(), 2u);
  capture.reset();
  EXPECT_TRUE(host.addresses.empty());
}

TEST_F(CaptureTest, ChangesNothingWhereAllIsRight) {
  auto first = install();
  first->leave();
  first.reset();
  int transactions = host.transactions;
  int changes = host.changes;

  auto second = install();
  auto repaired = second->verify();

  ASSERT_TRUE(repaired);
  EXPECT_FALSE(*repaired);
  EXPECT_EQ(host.transactions, transactions);
  EXPECT_EQ(host.changes, changes);
}

TEST_F(CaptureTest, RepairsWhatAnotherProgramFlushed) {
  auto capture = install();
  auto right = host.chains;
  host.chains["4"]["mangle"] = {{"PREROUTING", {}}, {"OUTPUT", {}}};
  host.chains["6"]["nat"]["OUTPUT"].insert(host.chains["6"]["nat"]["OUTPUT"].begin(), "-j KUBE");
  host.rules.clear();

  auto repaired = capture->verify();

  ASSERT_TRUE(repaired);
  EXPECT_TRUE(*repaired);
  EXPECT_EQ(capture->repairs(), 1u);
  right["6"]["nat"]["OUTPUT"].emplace_back("-j KUBE");
  EXPECT_EQ(host.chains, right);
  EXPECT_EQ(host.rules.size(), 4u);
}

TEST_F(CaptureTest, FollowsTheSettingThatBridgesCallIptables) {
  auto capture = install();
  const auto plain = host.chains;

  has_bridge = false;
  set_bridge("bridge-nf-call-iptables", '1');
  EXPECT_FALSE(*capture->verify()) << "there is no bridge";
  has_bridge = true;  // Docker was started
  EXPECT_TRUE(*capture->verify());

  EXPECT_NE(host.chains["4"]["nat"]["EDGEMESH_PREROUTING"].at(0).find("physdev"), std::string::npos);
  EXPECT_EQ(host.chains["6"], plain.at("6"));
  EXPECT_FALSE(*capture->verify());
  set_bridge("bridge-nf-call-iptables", '0');
  EXPECT_TRUE(*capture->verify());
  EXPECT_EQ(host.chains, plain);
}

TEST_F(CaptureTest, FallsBackToRedirectWithoutTproxy) {
  host.tproxy = false;

  auto capture = install();

  EXPECT_EQ(capture->mode(), CaptureMode::kRedirect);
  EXPECT_FALSE(host.chains["4"]["mangle"].contains("EDGEMESH_PREROUTING"));
  EXPECT_TRUE(host.chains["4"]["nat"]["EDGEMESH_OUTPUT"].at(0).ends_with("--to-ports 15002"));
}

TEST_F(CaptureTest, SaysWhyDatagramsAreNotCaptured) {
  EXPECT_EQ(install()->udp_missing(), "");
  config.mode = CaptureMode::kRedirect;
  EXPECT_NE(install()->udp_missing().find("capture.mode is redirect"), std::string::npos);

  config.mode = CaptureMode::kAuto;
  host.tproxy = false;
  ::testing::internal::CaptureStderr();
  auto capture = install();
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(capture->udp_missing().starts_with("TPROXY cannot be used: "));
  EXPECT_EQ(capture->udp_missing().find('\n'), std::string::npos);
  EXPECT_NE(log.find("UDP to services is not captured"), std::string::npos) << log;
}

TEST_F(CaptureTest, UsesLoopbackWhereThereIsNoDummyDevice) {
  host.dummy = false;

  auto capture = install();
  EXPECT_TRUE(host.addresses.contains("169.254.96.16/32"));

  capture.reset();
  EXPECT_TRUE(host.addresses.empty());
}

TEST_F(CaptureTest, SaysWhatToInstall) {
  host.missing = {"iptables"};
  auto capture = Capture::install(*loop, host, config);
  ASSERT_FALSE(capture);
  EXPECT_NE(capture.error().message.find("apt install iptables"), std::string::npos);
}

TEST_F(CaptureTest, SaysThatRightsAreMissing) {
  host.permitted = false;
  auto capture = Capture::install(*loop, host, config);
  ASSERT_FALSE(capture);
  EXPECT_EQ(capture.error().code, ErrorCode::kPermissionDenied);
  EXPECT_NE(capture.error().message.find("CAP_NET_ADMIN"), std::string::npos);
  EXPECT_TRUE(host.addresses.empty());
}

TEST_F(CaptureTest, FollowsNewServiceCidrs) {
  auto capture = install();

  ASSERT_TRUE(capture->update({*Cidr::parse("10.43.0.0/16")}));
  ASSERT_TRUE(capture->verify());

  EXPECT_EQ(host.chains["4"]["mangle"]["EDGEMESH_OUTPUT"].at(0).substr(0, 15), "-d 10.43.0.0/16");
  EXPECT_FALSE(host.chains["6"]["mangle"].contains("EDGEMESH_OUTPUT"));
  for (const auto& rule : host.rules) EXPECT_EQ(rule.find("10.96"), std::string::npos) << rule;
}

TEST_F(CaptureTest, NewServiceCidrsDoNotWaitForTheTools) {
  auto capture = install();
  std::mutex gate;
  std::unique_lock closed(gate);
  host.slow = [&] { std::lock_guard wait(gate); };

  // The first is under way, or waits for its turn, while the others come: only the last of them counts.
  for (int i = 1; i <= 20; ++i) {
    ASSERT_TRUE(capture->update({*Cidr::parse("10." + std::to_string(i) + ".0.0/16")}));
    EXPECT_EQ(capture->mode(), CaptureMode::kTproxy);
  }
  EXPECT_FALSE(capture->update({*Cidr::parse("0.0.0.0/0")}));
  closed.unlock();

  const auto captured = [&] {
    std::lock_guard lock(host.mutex);
    return host.chains["4"]["mangle"]["EDGEMESH_OUTPUT"].at(0).substr(0, 15);
  };
  ASSERT_TRUE(loop->run_until([&] { return captured() == "-d 10.20.0.0/16"; }, std::chrono::seconds(10)));
  EXPECT_LE(host.transactions, 4 + 3 * 2) << "each of the 20 was written";
  EXPECT_EQ(capture->repairs(), 0U) << "it was asked for";
}

TEST_F(CaptureTest, LooksByItselfWhereTheToolsAreTheLegacyOnes) {
  host.legacy = true;
  ManualClock clock;
  loop = std::move(*io::Loop::create(clock));
  auto capture = install();
  {
    std::lock_guard lock(host.mutex);
    host.chains["4"]["mangle"] = {{"PREROUTING", {}}, {"OUTPUT", {}}};
  }

  clock.advance(std::chrono::seconds(3));
  for (int i = 0; i < 1'000'000 && capture->repairs() == 0; ++i) loop->run_once();

  EXPECT_EQ(capture->repairs(), 1U);
  EXPECT_TRUE(host.chains["4"]["mangle"].contains("EDGEMESH_OUTPUT"));
  capture.reset();
}

TEST_F(CaptureTest, RefusesToCaptureTheWholeInternet) {
  config.service_cidrs = {*Cidr::parse("0.0.0.0/0")};
  EXPECT_FALSE(Capture::install(*loop, host, config));
  EXPECT_EQ(host.transactions, 0);
}

TEST_F(CaptureTest, RemoveAllClearsWhatAKilledAgentLeft) {
  auto before = host.chains;
  auto capture = install();
  capture->leave();
  capture.reset();
  ASSERT_NE(host.chains, before);

  ASSERT_TRUE(Capture::remove_all(host));

  EXPECT_EQ(host.chains, before);
  EXPECT_TRUE(host.rules.empty());
  EXPECT_TRUE(host.addresses.empty());
  EXPECT_TRUE(Capture::remove_all(host)) << "nothing is there";
}

}  // namespace
}  // namespace edgemesh::proxy
