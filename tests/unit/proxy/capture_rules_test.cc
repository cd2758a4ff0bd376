#include "proxy/capture_rules.h"

#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

CaptureConfig config() {
  CaptureConfig c;
  c.service_cidrs = {*Cidr::parse("10.96.0.0/12"), *Cidr::parse("fd00:96::/112")};
  return c;
}

TEST(CaptureRulesTest, TproxyModeMarksInOutputAndDivertsInPrerouting) {
  auto rules = wanted_rules(config(), CaptureMode::kTproxy, "mangle", false);

  EXPECT_EQ(rules["EDGEMESH_PREROUTING"],
            (std::vector<std::string>{
                "-d 10.96.0.0/12 -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m mark ! --mark "
                "0x4d45 -j MARK --set-xmark 0x4d46/0xffffffff",
                "-d 10.96.0.0/12 -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m mark ! --mark "
                "0x4d45 -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 15001 --on-ip 127.0.0.1 "
                "--tproxy-mark 0x4d46/0xffffffff",
                "-d 10.96.0.0/12 -p udp -m mark ! --mark 0x4d45 -m addrtype ! --dst-type LOCAL -j "
                "TPROXY --on-port 15001 --on-ip 127.0.0.1 --tproxy-mark 0x4d46/0xffffffff"}));
  EXPECT_EQ(rules["EDGEMESH_OUTPUT"],
            (std::vector<std::string>{
                "-d 10.96.0.0/12 -p tcp -m mark ! --mark 0x4d45 -m addrtype ! --dst-type LOCAL -j "
                "MARK --set-xmark 0x4d46/0xffffffff",
                "-d 10.96.0.0/12 -p udp -m mark ! --mark 0x4d45 -m addrtype ! --dst-type LOCAL -j "
                "MARK --set-xmark 0x4d46/0xffffffff"}));
}

TEST(CaptureRulesTest, TproxyModeKeepsNatRulesOfOthersAway) {
  auto rules = wanted_rules(config(), CaptureMode::kTproxy, "nat", true);

  EXPECT_EQ(rules["EDGEMESH_OUTPUT"],
            (std::vector<std::string>{"-d fd00:96::/112 -p tcp -m mark --mark 0x4d46 -j ACCEPT",
                                      "-d fd00:96::/112 -p udp -m mark --mark 0x4d46 -j ACCEPT"}));
}

TEST(CaptureRulesTest, ConnectionsOutOfABridgeAreRedirectedWhereTheBridgeCallsIptables) {
  CaptureConfig bridged = config();
  bridged.bridged_v4 = true;
  const std::string first =
      "-d 10.96.0.0/12 -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m physdev --physdev-is-in ";

  auto mangle = wanted_rules(bridged, CaptureMode::kTproxy, "mangle", false);
  auto nat = wanted_rules(bridged, CaptureMode::kTproxy, "nat", false);

  EXPECT_EQ(mangle["EDGEMESH_PREROUTING"].at(0), first + "-j RETURN");
  EXPECT_EQ(mangle["EDGEMESH_PREROUTING"].size(), 4U);
  EXPECT_EQ(nat["EDGEMESH_PREROUTING"].at(0),
            first + "-m addrtype ! --dst-type LOCAL -j REDIRECT --to-ports 15002");
  EXPECT_EQ(wanted_rules(bridged, CaptureMode::kTproxy, "nat", true),
            wanted_rules(config(), CaptureMode::kTproxy, "nat", true));
  EXPECT_EQ(wanted_rules(bridged, CaptureMode::kRedirect, "nat", false),
            wanted_rules(config(), CaptureMode::kRedirect, "nat", false));
  EXPECT_EQ(parse_rules("-A X -m physdev  --physdev-is-in -j RETURN\n")["X"].at(0),
            "-m physdev --physdev-is-in -j RETURN");
}

TEST(CaptureRulesTest, RedirectModeUsesNatOnly) {
  EXPECT_TRUE(wanted_rules(config(), CaptureMode::kRedirect, "mangle", false).empty());
  auto rules = wanted_rules(config(), CaptureMode::kRedirect, "nat", false);
  EXPECT_EQ(
      rules["EDGEMESH_PREROUTING"].at(0).substr(rules["EDGEMESH_PREROUTING"].at(0).find("-j")),
      "-j REDIRECT --to-ports 15002");
}

TEST(CaptureRulesTest, NothingIsWantedForAFamilyWithoutCidr) {
  CaptureConfig c = config();
  c.service_cidrs.pop_back();
  EXPECT_TRUE(wanted_rules(c, CaptureMode::kTproxy, "mangle", true).empty());
}

TEST(CaptureRulesTest, ParsesListAndSaveFormats) {
  auto rules =
      parse_rules("-P PREROUTING ACCEPT\n:OUTPUT ACCEPT [1:2]\n-N OWN\n-A OWN -p tcp -j X \n");

  EXPECT_EQ(rules.size(), 3u);
  EXPECT_EQ(rules["OWN"], std::vector<std::string>{"-p tcp -j X"});
}

TEST(CaptureRulesTest, TransactionFromNothingFirst) {
  ChainRules wanted{{"EDGEMESH_PREROUTING", {"-j A"}}, {"EDGEMESH_OUTPUT", {"-j B"}}};

  EXPECT_EQ(render_transaction("mangle", {}, wanted),
            "*mangle\n:EDGEMESH_PREROUTING - [0:0]\n:EDGEMESH_OUTPUT - [0:0]\n"
            "-I PREROUTING 1 -j EDGEMESH_PREROUTING\n-I OUTPUT 1 -j EDGEMESH_OUTPUT\n"
            "-A EDGEMESH_PREROUTING -j A\n-A EDGEMESH_OUTPUT -j B\nCOMMIT\n");
}

TEST(CaptureRulesTest, TransactionRemovesEveryJumpThatIsThere) {
  ChainRules present{
      {"PREROUTING", {"-j EDGEMESH_PREROUTING", "-j KUBE", "-j EDGEMESH_PREROUTING"}},
      {"EDGEMESH_PREROUTING", {"-j A"}}};

  EXPECT_EQ(render_transaction("nat", present, {}),
            "*nat\n-D PREROUTING -j EDGEMESH_PREROUTING\n-D PREROUTING -j EDGEMESH_PREROUTING\n"
            "-F EDGEMESH_PREROUTING\n-X EDGEMESH_PREROUTING\nCOMMIT\n");
  EXPECT_EQ(render_transaction("nat", {{"PREROUTING", {"-j KUBE"}}}, {}), "");
}

TEST(CaptureRulesTest, RulesAreWrongWhenNotFirst) {
  ChainRules wanted{{"EDGEMESH_PREROUTING", {"-j A"}}, {"EDGEMESH_OUTPUT", {"-j B"}}};
  ChainRules present = wanted;
  present["PREROUTING"] = {"-j EDGEMESH_PREROUTING"};
  present["OUTPUT"] = {"-j EDGEMESH_OUTPUT"};
  EXPECT_TRUE(rules_right(present, wanted));

  present["OUTPUT"] = {"-j KUBE-SERVICES", "-j EDGEMESH_OUTPUT"};
  EXPECT_FALSE(rules_right(present, wanted));
}

}  // namespace
}  // namespace edgemesh::proxy
