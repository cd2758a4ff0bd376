#include "discovery/dns_zone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::discovery {
namespace {

using dns::Name;
using dns::Zone;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using namespace testing_parts;

class ZoneTest : public testing::Test {
 protected:
  ZoneTest() : zone_(*Name::parse("cluster.local"), 5, {*IpAddr::parse("169.254.96.16")}) {
    zone_.set_service_cidrs({*Cidr::parse("10.96.0.0/12")});
    fill(registry_);
    snapshot_ = registry_.snapshot();
  }
  Reply ask(std::string_view name, uint16_t type = dns::kA, size_t limit = 1232) {
    return ask_bytes(raw_query(name, type), limit);
  }
  Reply ask_bytes(const Bytes& bytes, size_t limit = 1232) {
    dns::Query query;
    EXPECT_EQ(dns::parse_query(bytes, query), dns::Parsed::kQuery);
    dns::Writer writer(buffer_, limit, query);
    outcome_ = zone_.answer(query, snapshot_.get(), writer, chase_);
    raw_ = writer.finish();
    return read_reply(raw_);
  }
  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  Registry registry_{*loop_};
  std::shared_ptr<const Snapshot> snapshot_;
  Zone zone_;
  Zone::Outcome outcome_{};
  Name chase_;
  std::array<uint8_t, 65535> buffer_;
  std::span<const uint8_t> raw_;
};

TEST_F(ZoneTest, AnswersServiceWithItsClusterIp) {
  auto r = ask("hello.default.svc.cluster.local");

  EXPECT_EQ(r.rcode, dns::kNoError);
  EXPECT_TRUE(r.has(dns::kFlagAa) && r.has(dns::kFlagQr) && r.has(dns::kFlagRa) && r.has(dns::kFlagRd));
  EXPECT_THAT(r.answers, ElementsAre("hello.default.svc.cluster.local. A 10.96.0.10"));
  EXPECT_EQ(r.id, 0x1234);
}

TEST_F(ZoneTest, KeepsTheCaseOfTheQuestion) {
  auto r = ask("HeLLo.default.SVC.cluster.LOCAL");

  EXPECT_EQ(r.answers.size(), 1u);
  EXPECT_EQ(std::string(raw_.begin() + 13, raw_.begin() + 18), "HeLLo");
}

TEST_F(ZoneTest, AnswersBothFamiliesOfDualStack) {
  EXPECT_THAT(ask("dual.default.svc.cluster.local").answers,
              ElementsAre("dual.default.svc.cluster.local. A 10.96.0.11"));
  EXPECT_THAT(ask("dual.default.svc.cluster.local", dns::kAaaa).answers,
              ElementsAre("dual.default.svc.cluster.local. AAAA fd00:96::11"));
}

TEST_F(ZoneTest, SaysNoDataForTheOtherFamily) {
  auto r = ask("hello.default.svc.cluster.local", dns::kAaaa);

  EXPECT_EQ(r.rcode, dns::kNoError);
  EXPECT_THAT(r.answers, IsEmpty());
  EXPECT_THAT(r.authority, ElementsAre("cluster.local. SOA"));
}

TEST_F(ZoneTest, SaysNoSuchNameWithSoa) {
  for (const char* name : {"nope.default.svc.cluster.local", "hello.nope.svc.cluster.local", "x.cluster.local",
                           "example.com.default.svc.cluster.local", "x.hello.default.svc.cluster.local"}) {
    auto r = ask(name);
    EXPECT_EQ(r.rcode, dns::kNxDomain) << name;
    EXPECT_THAT(r.authority, ElementsAre("cluster.local. SOA")) << name;
  }
}

TEST_F(ZoneTest, NamesInBetweenExist) {
  for (const char* name : {"cluster.local", "svc.cluster.local", "default.svc.cluster.local",
                           "_tcp.hello.default.svc.cluster.local",
                           "_http._tcp.hello.default.svc.cluster.local"}) {
    auto r = ask(name);
    EXPECT_EQ(r.rcode, dns::kNoError) << name;
    EXPECT_THAT(r.authority, ElementsAre("cluster.local. SOA")) << name;
  }
  EXPECT_EQ(ask("nope.svc.cluster.local").rcode, dns::kNxDomain);
}

TEST_F(ZoneTest, AnswersSrvOfNamedPort) {
  auto r = ask("_http._tcp.hello.default.svc.cluster.local", dns::kSrv);

  EXPECT_THAT(r.answers, ElementsAre("_http._tcp.hello.default.svc.cluster.local. SRV 0 100 80 "
                                     "hello.default.svc.cluster.local."));
  EXPECT_THAT(r.additional, ElementsAre("hello.default.svc.cluster.local. A 10.96.0.10"));
  EXPECT_EQ(ask("_http._udp.hello.default.svc.cluster.local", dns::kSrv).rcode, dns::kNxDomain);
}

TEST_F(ZoneTest, AnswersHeadlessServiceWithItsPods) {
  auto r = ask("db.default.svc.cluster.local");
  EXPECT_THAT(r.answers, UnorderedElementsAre("db.default.svc.cluster.local. A 10.1.0.5",
                                              "db.default.svc.cluster.local. A 10.1.0.6"));

  EXPECT_THAT(ask("db-0.db.default.svc.cluster.local").answers,
              ElementsAre("db-0.db.default.svc.cluster.local. A 10.1.0.5"));
  EXPECT_THAT(ask("10-1-0-6.db.default.svc.cluster.local").answers,
              ElementsAre("10-1-0-6.db.default.svc.cluster.local. A 10.1.0.6"));
  EXPECT_EQ(ask("db-1.db.default.svc.cluster.local").rcode, dns::kNxDomain);

  r = ask("_http._tcp.db.default.svc.cluster.local", dns::kSrv);
  EXPECT_THAT(r.answers, ElementsAre("_http._tcp.db.default.svc.cluster.local. SRV 0 50 8080 "
                                     "db-0.db.default.svc.cluster.local.",
                                     "_http._tcp.db.default.svc.cluster.local. SRV 0 50 8080 "
                                     "10-1-0-6.db.default.svc.cluster.local."));
  EXPECT_EQ(r.additional.size(), 2u);
}

TEST_F(ZoneTest, HeadlessServiceWithoutReadyPodsDoesNotExist) {
  EXPECT_EQ(ask("empty.default.svc.cluster.local").rcode, dns::kNxDomain);
  registry_.upsert_slice(slice("empty", {{"10.1.0.9", "", "", "", false, true, true}}));
  snapshot_ = registry_.snapshot();
  EXPECT_EQ(ask("empty.default.svc.cluster.local").rcode, dns::kNxDomain);
}

TEST_F(ZoneTest, HeadlessServiceWithTwoPortsNamesEachPodOnce) {
  auto s = service("multi", {});
  s.ports.push_back(s.ports[0]);
  s.ports[1].name = "admin";
  auto e = slice("multi", {{"10.1.0.7"}, {"10.1.0.8"}});
  e.ports.push_back({"admin", "TCP", "", 9090});
  registry_.upsert_service(s);
  registry_.upsert_slice(e);
  snapshot_ = registry_.snapshot();

  EXPECT_EQ(ask("multi.default.svc.cluster.local").answers.size(), 2u);
}

TEST_F(ZoneTest, SaysAnAddressThatTwoNodesHaveOnce) {
  registry_.upsert_service(service("site", {}));
  registry_.upsert_slice(slice("site", {{"192.168.1.10", "a", "cam-a"}, {"192.168.1.10", "b", "cam-b"},
                                        {"192.168.1.11", "a"}, {"192.168.1.11", "b"}}));
  snapshot_ = registry_.snapshot();

  EXPECT_THAT(ask("site.default.svc.cluster.local").answers,
              UnorderedElementsAre("site.default.svc.cluster.local. A 192.168.1.10",
                                   "site.default.svc.cluster.local. A 192.168.1.11"));
  for (std::string host : {"cam-a", "cam-b", "192-168-1-11"})
    EXPECT_EQ(ask(host + ".site.default.svc.cluster.local").answers.size(), 1u) << host;
  EXPECT_EQ(ask("_http._tcp.site.default.svc.cluster.local", dns::kSrv).answers.size(), 3u);
}

TEST_F(ZoneTest, FollowsExternalNames) {
  auto r = ask("ext.default.svc.cluster.local");
  EXPECT_EQ(outcome_, Zone::Outcome::kChase);
  EXPECT_EQ(text_of(chase_), "www.example.com.");
  EXPECT_THAT(r.answers, ElementsAre("ext.default.svc.cluster.local. CNAME www.example.com."));

  r = ask("alias.default.svc.cluster.local");
  EXPECT_EQ(outcome_, Zone::Outcome::kAnswered);
  EXPECT_THAT(r.answers,
              ElementsAre("alias.default.svc.cluster.local. CNAME hello.default.svc.cluster.local.",
                          "hello.default.svc.cluster.local. A 10.96.0.10"));

  EXPECT_EQ(ask("loop.default.svc.cluster.local").rcode, dns::kServFail);
  EXPECT_EQ(ask("ext.default.svc.cluster.local", dns::kCname).answers.size(), 1u);
  EXPECT_EQ(outcome_, Zone::Outcome::kAnswered);
}

TEST_F(ZoneTest, AnswersReverseNames) {
  EXPECT_THAT(ask("10.0.96.10.in-addr.arpa", dns::kPtr).answers,
              ElementsAre("10.0.96.10.in-addr.arpa. PTR hello.default.svc.cluster.local."));
  EXPECT_THAT(ask("5.0.1.10.in-addr.arpa", dns::kPtr).answers,
              ElementsAre("5.0.1.10.in-addr.arpa. PTR db-0.db.default.svc.cluster.local."));
  EXPECT_THAT(ask("1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa", dns::kPtr)
                  .answers,
              ElementsAre(testing::HasSubstr("PTR dual.default.svc.cluster.local.")));
  EXPECT_EQ(ask("99.0.96.10.in-addr.arpa", dns::kPtr).rcode, dns::kNxDomain);
  ask("8.8.8.8.in-addr.arpa", dns::kPtr);
  EXPECT_EQ(outcome_, Zone::Outcome::kForward);
}

TEST_F(ZoneTest, LeavesOtherNamesToUpstream) {
  for (const char* name : {"hello", "hello.default", "hello.default.svc", "example.com", "notcluster.local",
                           "xcluster.local", "local"}) {
    ask(name);
    EXPECT_EQ(outcome_, Zone::Outcome::kForward) << name;
  }
}

TEST_F(ZoneTest, FailsBeforeTheFirstSnapshot) {
  snapshot_.reset();
  EXPECT_EQ(ask("hello.default.svc.cluster.local").rcode, dns::kServFail);
}

TEST_F(ZoneTest, TruncatesAtTheLimit) {
  std::vector<Pod> pods;
  for (int i = 1; i < 200; ++i) pods.push_back({"10.2.0." + std::to_string(i)});
  registry_.upsert_slice(slice("empty", pods));
  snapshot_ = registry_.snapshot();

  auto r = ask("empty.default.svc.cluster.local", dns::kA, 512);
  EXPECT_TRUE(r.has(dns::kFlagTc));
  EXPECT_LE(raw_.size(), 512u);
  r = ask_bytes(with_edns(raw_query("empty.default.svc.cluster.local", dns::kA), 4096), 1232);
  EXPECT_TRUE(r.has(dns::kFlagTc));
  EXPECT_LE(raw_.size(), 1232u);
  EXPECT_THAT(r.additional, ElementsAre("OPT 1232"));
  r = ask("empty.default.svc.cluster.local", dns::kA, 65535);
  EXPECT_FALSE(r.has(dns::kFlagTc));
  EXPECT_EQ(r.answers.size(), 199u);
}

TEST_F(ZoneTest, AnswersTheDomainItself) {
  EXPECT_THAT(ask("cluster.local", dns::kSoa).answers, ElementsAre("cluster.local. SOA"));
  EXPECT_THAT(ask("cluster.local", dns::kNs).answers, ElementsAre("cluster.local. NS ns.dns.cluster.local."));
  EXPECT_THAT(ask("ns.dns.cluster.local").answers, ElementsAre("ns.dns.cluster.local. A 169.254.96.16"));
  EXPECT_EQ(ask("dns-version.cluster.local", dns::kTxt).answers.size(), 1u);
}

}  // namespace
}  // namespace edgemesh::discovery
