#include "proxy/listener/chain_match.h"

#include <gtest/gtest.h>

#include <deque>

namespace edgemesh::proxy {
namespace {

using model::ChainMatch;
using Transport = ChainMatch::Transport;
using SourceType = ChainMatch::SourceType;

class ChainMatchTest : public testing::Test {
 protected:
  ChainMatch& add() {
    matches_.emplace_back();
    return matches_.back();
  }
  int match() {
    std::vector<model::FilterChainPtr> chains;
    for (const auto& one : matches_) {
      auto chain = std::make_shared<model::FilterChain>();
      chain->match = one;
      chains.push_back(chain);
    }
    return match_chain(chains, facts_);
  }
  static SockAddr addr(const char* text) { return SockAddr::parse(text).value(); }
  static Cidr cidr(const char* text) { return Cidr::parse(text).value(); }

  std::deque<ChainMatch> matches_;
  ChainFacts facts_{addr("1.2.3.4:1000"), addr("10.0.0.9:2000"), addr("5.6.7.8:443"), "", false, {}};
};

TEST_F(ChainMatchTest, NothingAskedForTakesEverything) {
  EXPECT_EQ(match(), -1);
  add();
  add();
  EXPECT_EQ(match(), 0);  // the first of equal ones
}

TEST_F(ChainMatchTest, PortGoesBeforeAllElse) {
  add().destination_port = 443;
  ChainMatch& closer = add();
  closer.destinations = {cidr("5.6.7.8/32")};
  EXPECT_EQ(match(), 0);
  facts_.destination.port = 80;
  EXPECT_EQ(match(), 1);
}

TEST_F(ChainMatchTest, ThereIsNoWayBack) {
  ChainMatch& first = add();
  first.destination_port = 443;
  first.server_names = {"a.example"};
  add();  // takes anything, but is less specific in the port
  facts_.server_name = "b.example";
  EXPECT_EQ(match(), -1);
  facts_.server_name = "a.example";
  EXPECT_EQ(match(), 0);
}

TEST_F(ChainMatchTest, TheLongestDestinationPrefix) {
  add().destinations = {cidr("5.0.0.0/8"), cidr("9.9.9.9/32")};
  add().destinations = {cidr("0.0.0.0/0")};
  add().destinations = {cidr("1.1.1.1/32"), cidr("5.6.7.0/24")};
  add();
  EXPECT_EQ(match(), 2);
  facts_.destination = addr("5.1.1.1:443");
  EXPECT_EQ(match(), 0);
  facts_.destination = addr("6.1.1.1:443");
  EXPECT_EQ(match(), 1);  // /0 is more than nothing
  facts_.destination = addr("[::1]:443");
  EXPECT_EQ(match(), 3);
}

TEST_F(ChainMatchTest, ServerNames) {
  add().server_names = {"*.example"};
  add().server_names = {"other.test", "*.shop.example"};
  add().server_names = {"a.shop.example"};
  add();
  const std::pair<const char*, int> cases[] = {{"a.shop.example", 2}, {"A.Shop.Example", 2},
                                               {"b.shop.example", 1}, {"x.b.shop.example", 1},
                                               {"shop.example", 0},   {"example", 3},
                                               {".example", 3},       {"", 3},
                                               {"other.test", 1},     {"b.other.test", 3}};
  for (const auto& [name, chain] : cases) {
    facts_.server_name = name;
    EXPECT_EQ(match(), chain) << name;
  }
}

TEST_F(ChainMatchTest, TransportAndProtocols) {
  add().transport = Transport::kRaw;
  ChainMatch& h2 = add();
  h2.transport = Transport::kTls;
  h2.application_protocols = {"istio", "h2"};
  add().transport = Transport::kTls;
  EXPECT_EQ(match(), 0);
  facts_.tls = true;
  EXPECT_EQ(match(), 2);
  const std::string_view protocols[] = {"http/1.1", "h2"};
  facts_.protocols = protocols;
  EXPECT_EQ(match(), 1);
  facts_.protocols = {protocols, 1};
  EXPECT_EQ(match(), 2);
}

TEST_F(ChainMatchTest, DirectSourcesGoBeforeSources) {
  add().sources = {cidr("1.2.3.4/32")};
  add().direct_sources = {cidr("10.0.0.0/8")};
  EXPECT_EQ(match(), 1);
  facts_.direct = addr("11.0.0.9:1");
  EXPECT_EQ(match(), 0);
}

TEST_F(ChainMatchTest, KindOfSource) {
  add().source_type = SourceType::kLocal;
  ChainMatch& external = add();
  external.source_type = SourceType::kExternal;
  EXPECT_EQ(match(), 1);
  facts_.source = addr("127.0.0.1:5");
  EXPECT_EQ(match(), 0);
  facts_.source = addr("5.6.7.8:5");  // from the address that it goes to
  EXPECT_EQ(match(), 0);
}

TEST_F(ChainMatchTest, SourcePorts) {
  ChainMatch& match_one = add();
  match_one.sources = {cidr("1.0.0.0/8")};
  match_one.source_ports = {999, 1000};
  ChainMatch& longer = add();
  longer.sources = {cidr("1.2.0.0/16")};
  EXPECT_EQ(match(), 1);
  matches_.pop_back();
  EXPECT_EQ(match(), 0);
  facts_.source.port = 1;
  EXPECT_EQ(match(), -1);
}

TEST(Inspection, IsNeededWhereAChainAsks) {
  model::Listener listener;
  auto chain = std::make_shared<model::FilterChain>();
  listener.chains = {chain};
  EXPECT_FALSE(needs_tls_inspection(listener) || needs_http_inspection(listener));
  chain->match.server_names = {"a"};
  EXPECT_TRUE(needs_tls_inspection(listener));
  EXPECT_FALSE(needs_http_inspection(listener));
  chain->match = {};
  chain->match.application_protocols = {"h2c"};
  EXPECT_TRUE(needs_http_inspection(listener));
  chain->match = {};
  auto tls = std::make_shared<model::TlsTermination>();
  chain->tls = model::Part<model::TlsTermination>(tls);
  EXPECT_FALSE(needs_tls_inspection(listener));
  tls->more.emplace_back();
  EXPECT_TRUE(needs_tls_inspection(listener));
}

}  // namespace
}  // namespace edgemesh::proxy
