#include "proxy/route/policies.h"

#include <gtest/gtest.h>

#include "proxy/route/mutations.h"
#include "proxy/route/retry.h"
#include "proxy/route/rewrite.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

void request(Head& head, std::string_view method, std::string_view path) {
  head.method = method;
  head.scheme = "http";
  head.authority = "a.example:80";
  head.path = path;
}

TEST(Mutations, SetAddRemoveWithFormats) {
  model::HeaderMutations spec;
  using Mode = model::HeaderValue::Mode;
  spec.remove = {"x-old"};
  spec.add = {{"x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%/%PROTOCOL%", Mode::kSet},
              {"x-agent", "%REQ(user-agent):3%", Mode::kAppend},
              {"x-none", "%REQ(absent)%", Mode::kAppend},
              {"x-time", "%START_TIME%", Mode::kAddIfAbsent},
              {"x-pct", "100%%", Mode::kAppend}};
  const auto made = Mutations::make(spec);
  ASSERT_TRUE(made) << made.error().message;
  Head head;
  request(head, "GET", "/");
  head.add("X-Old", "1");
  head.add("X-Client", "spoofed");
  head.add("User-Agent", "curl/8");
  Facts facts;
  facts.peer = *SockAddr::parse("10.0.0.1:5");
  facts.client = facts.peer.ip;
  LogFacts log;
  log.facts = &facts;
  log.request = &head;
  (*made)->apply(&head, log);
  EXPECT_FALSE(head.has("x-old"));
  EXPECT_EQ(head.get("x-client"), "10.0.0.1/HTTP/1.1");
  EXPECT_EQ(head.get("x-agent"), "cur");
  EXPECT_FALSE(head.has("x-none"));
  EXPECT_EQ(head.get("x-time"), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(head.get("x-pct"), "100%");
  spec.add = {{"content-length", "1", Mode::kSet}};
  EXPECT_FALSE(Mutations::make(spec));
  EXPECT_FALSE(Format::make("%NO_SUCH%"));
  EXPECT_FALSE(Format::make("50%"));
}

TEST(Rewriter, ReplacesWhatMatched) {
  model::Rewrite spec;
  spec.prefix = "/";
  model::PathMatch match{model::PathMatch::Kind::kSegmentPrefix, "/api"};
  const auto made = Rewriter::make(spec, match);
  ASSERT_TRUE(made);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"/api/x?q=1", "/x?q=1"}, {"/api", "/"}, {"/api?q", "/?q"}}) {
    Head head;
    request(head, "GET", from);
    EXPECT_TRUE((*made)->apply(&head));
    EXPECT_EQ(head.path, to);
  }
}

TEST(Redirector, BuildsTheLocation) {
  model::Redirect spec;
  spec.scheme = "https";
  spec.prefix = "/new";
  const model::PathMatch match{model::PathMatch::Kind::kPrefix, "/old"};
  const auto made = Redirector::make(spec, match);
  ASSERT_TRUE(made);
  Head head;
  request(head, "GET", "/old/x?q");
  std::string location;
  ASSERT_TRUE((*made)->location(head, {}, &location));
  EXPECT_EQ(location, "https://a.example/new/x?q");  // port 80 was http's
}

TEST(Path, Normalised) {
  model::HttpChain chain;
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"/a/./b/../c", "/a/c"},
                                                        {"/a/%2e%2E/b?x=/../", "/b?x=/../"},
                                                        {"/a/..", "/"},
                                                        {"/a//b", "/a//b"},
                                                        {"/%41%2fb", "/A%2Fb"},
                                                        {"/..", "!"},
                                                        {"/%2", "!"},
                                                        {"/%00", "!"}}) {
    Head head;
    request(head, "GET", from);
    const bool good = normalize_path(chain, &head) == PathResult::kOk;
    EXPECT_EQ(good ? head.path : "!", to) << from;
  }
  chain.merge_slashes = true;
  chain.escaped_slashes = model::PathSlashes::kUnescape;
  Head head;
  request(head, "GET", "/a//%2Fb");
  EXPECT_EQ(normalize_path(chain, &head), PathResult::kOk);
  EXPECT_EQ(head.path, "/a/b");
}

TEST(Retry, ConditionsAndTimes) {
  auto spec = std::make_shared<model::RetryPolicy>();
  spec->on = model::retry_on::kConnectFailure | model::retry_on::kStatuses |
             model::retry_on::kGrpcUnavailable;
  spec->statuses = {418, 503};
  const auto made = RetryRules::make(model::Part<model::RetryPolicy>(spec));
  ASSERT_TRUE(made);
  Head answer;
  answer.status = 503;
  EXPECT_TRUE((*made)->should_retry(TryResult::kAnswer, &answer, true));
  answer.status = 200;
  EXPECT_FALSE((*made)->should_retry(TryResult::kAnswer, &answer, true));
  answer.add("grpc-status", "14");
  EXPECT_TRUE((*made)->should_retry(TryResult::kAnswer, &answer, true));
  EXPECT_TRUE((*made)->should_retry(TryResult::kConnectFailure, nullptr, false));
  EXPECT_FALSE((*made)->should_retry(TryResult::kReset, nullptr, true));
  for (uint64_t r = 0; r < 1000; ++r) {
    EXPECT_LT((*made)->backoff(1, r * 7'777'777), milliseconds(25));
    EXPECT_LT((*made)->backoff(60, r * 7'777'777), milliseconds(250));
  }
  EXPECT_EQ(parse_grpc_timeout("10S"), seconds(10));
  EXPECT_EQ(parse_grpc_timeout("5m"), milliseconds(5));
  for (const auto* bad : {"", "S", "10", "-1S", "123456789S", "1x"})
    EXPECT_FALSE(parse_grpc_timeout(bad)) << bad;
}

TEST(TokenBucket, FillsWithTime) {
  ManualClock clock;
  TokenBucket bucket(2, 1, seconds(1));
  EXPECT_TRUE(bucket.take(clock.now()));
  EXPECT_TRUE(bucket.take(clock.now()));
  EXPECT_FALSE(bucket.take(clock.now()));
  clock.advance(seconds(1));
  EXPECT_EQ(bucket.left(clock.now()), 1U);
  EXPECT_TRUE(bucket.take(clock.now()));
  EXPECT_FALSE(bucket.take(clock.now()));
}

TEST(Rbac, DenyAndAllow) {
  auto spec = std::make_shared<model::Rbac>();
  model::RbacRule get, inside, outside;
  get.kind = model::RbacRule::Kind::kMethod;
  get.text.text = "GET";
  inside.kind = model::RbacRule::Kind::kSourceIp;
  inside.cidr = *Cidr::parse("10.0.0.0/8");
  outside.kind = model::RbacRule::Kind::kNot;
  outside.rules = {inside};
  using Action = model::RbacRules::Action;
  spec->rules = {{Action::kDeny, {{"out", {model::RbacRule{}}, {outside}}}},
                 {Action::kAllow, {{"read", {get}, {model::RbacRule{}}}}}};
  const auto made = RbacEngine::make(model::Part<model::Rbac>(spec));
  ASSERT_TRUE(made);
  Head head;
  request(head, "GET", "/");
  Facts facts;
  facts.client = *IpAddr::parse("10.1.1.1");
  EXPECT_TRUE((*made)->check(head, facts).allowed);
  head.method = "PUT";
  EXPECT_FALSE((*made)->check(head, facts).allowed);
  head.method = "GET";
  facts.client = *IpAddr::parse("192.0.2.1");
  EXPECT_FALSE((*made)->check(head, facts).allowed);
  EXPECT_EQ((*made)->check(head, facts).policy, "out");
}

TEST(Cors, PreflightAndAnswer) {
  auto spec = std::make_shared<model::Cors>();
  spec->origins = {{model::TextMatch::Kind::kSuffix, ".example"}};
  spec->methods = "GET";
  const auto made = CorsRules::make(model::Part<model::Cors>(spec));
  ASSERT_TRUE(made);
  Head head;
  request(head, "OPTIONS", "/");
  head.add("origin", "http://a.example");
  EXPECT_EQ((*made)->check(head), CorsRules::Verdict::kAllowed);
  head.add("access-control-request-method", "GET");
  EXPECT_EQ((*made)->check(head), CorsRules::Verdict::kPreflight);
  Head answer;
  (*made)->preflight_fields(head, &answer);
  EXPECT_EQ(answer.get("access-control-allow-origin"), "http://a.example");
  EXPECT_EQ(answer.get("access-control-allow-methods"), "GET");
  head.set("origin", "http://evil.test");
  EXPECT_EQ((*made)->check(head), CorsRules::Verdict::kNone);
}

TEST(Fault, IsDrawnAtItsShare) {
  auto spec = std::make_shared<model::Fault>();
  spec->abort_share = 100'000;
  spec->abort_status = 503;
  const auto made = FaultRules::make(model::Part<model::Fault>(spec));
  ASSERT_TRUE(made);
  Head head;
  request(head, "GET", "/");
  int hits = 0;
  for (uint64_t i = 0; i < 10'000; ++i) hits += (*made)->decide(head, i).abort_status == 503;
  EXPECT_NEAR(hits, 1000, 150);
}

TEST(Hash, CookieIsMadeOnce) {
  model::HashPolicy policy;
  policy.kind = model::HashPolicy::Kind::kCookie;
  policy.name = "s";
  policy.cookie_ttl = seconds(60);
  Head head;
  request(head, "GET", "/");
  Facts facts;
  facts.random = 5;
  std::string made;
  const auto first = request_hash({policy}, head, facts, &made);
  ASSERT_TRUE(first);
  const std::string cookie = "x=1; " + made.substr(0, made.find(';'));
  head.add("cookie", cookie);
  std::string again;
  EXPECT_EQ(request_hash({policy}, head, facts, &again), first);
  EXPECT_EQ(again, "");
}

}  // namespace
}  // namespace edgemesh::proxy
