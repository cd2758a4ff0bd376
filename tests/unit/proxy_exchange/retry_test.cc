// Tries: retries, their limits and pauses, hedges, timeouts, circuit breakers, ejection.
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

// The cluster "pair" has both endpoints.
constexpr char kPair[] = R"(- name: pair
  endpoints: [{address: "10.0.0.1:80"}, {address: "10.0.0.2:80"}]
)";

class Retry : public ExchangeTest {
 protected:
  void route(const std::string& more, const std::string& cluster = "a",
             const std::string& options = "") {
    ProxyYaml yaml;
    yaml.routes = "- match: {prefix: /}\n  cluster: " + cluster + "\n" + more;
    yaml.clusters = std::string(kPair) + options;
    yaml.a = a_options;
    yaml.host = "attemptCountHeader: true";
    configure(yaml);
  }
  static std::function<void(Side&)> failing(int times, int status = 503) {
    return [left = times, status](Side& side) mutable {
      if (left-- > 0) {
        h1test::answer(*side.stream, status, "no");
        side.stream.reset();
      } else {
        answer_default(side);
      }
    };
  }
  // Sends, lets the pauses between tries pass, and returns when it ended.
  Side& get_all(Client& client, std::string_view body = {}) {
    Side& side = client.send(body.empty() ? "GET" : "POST", "/", {}, body);
    for (int i = 0; i < 50 && !side.ended && side.reset.empty(); ++i) advance(milliseconds(100));
    EXPECT_TRUE(side.ended || !side.reset.empty());
    side.stream.reset();
    return side;
  }
  std::string a_options;
};

TEST_F(Retry, RepeatsOn503WithTheBodyAndStopsAtItsLimit) {
  route("  retry: {on: [5xx], attempts: 2}");
  a().reply = failing(2);
  Client& client = connect();
  Side& fine = get_all(client, "the body");
  EXPECT_EQ(status(fine), 200);
  EXPECT_EQ(fine.body, "POST /|shop.example|the body");
  EXPECT_EQ(flags(fine), "-");
  ASSERT_EQ(a().requests.size(), 3u);
  EXPECT_EQ(a().field("x-envoy-attempt-count", 0), "1");
  EXPECT_EQ(a().field("x-envoy-attempt-count", 2), "3");
  EXPECT_EQ(stats_.retries.value(), 2u);
  EXPECT_EQ(cluster_stats("a").retries.value(), 2u);
  a().reply = failing(100);
  Side& bad = get_all(client);
  EXPECT_EQ(status(bad), 503);
  EXPECT_EQ(bad.body, "no");  // the endpoint's own answer
  EXPECT_EQ(flags(bad), "URX");
  EXPECT_EQ(a().requests.size(), 6u);
  EXPECT_EQ(listener_stats_.by_class[5].value(), 1u);
}

TEST_F(Retry, DoesNotRepeatWhatThePolicyDoesNotName) {
  route("  retry: {on: [gateway-error], attempts: 3}");
  a().reply = failing(1, 500);
  EXPECT_EQ(status(get_all(connect())), 500);
  EXPECT_EQ(a().requests.size(), 1u);
}

TEST_F(Retry, PausesBetweenTries) {
  route("  retry: {on: [5xx], attempts: 5, baseInterval: 10s, maxInterval: 20s}");
  a().reply = failing(1);
  Client& client = connect();
  Side& side = client.send("GET", "/");
  settle();
  EXPECT_EQ(a().requests.size(), 1u);
  EXPECT_FALSE(side.ended);
  advance(milliseconds(1));
  // Full jitter: somewhere below 10 s, and with this seed not at its beginning.
  EXPECT_EQ(a().requests.size(), 1u);
  for (int i = 0; i < 10 && !side.ended; ++i) advance(seconds(1));
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(a().requests.size(), 2u);
}

TEST_F(Retry, GoesToAnotherHostWhenConnectsFail) {
  route("  retry: {on: [connect-failure], attempts: 1}", "pair");
  a().refuse = true;
  Client& client = connect();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(status(get_all(client, "x")), 200);
  EXPECT_EQ(b().requests.size(), 4u);
  EXPECT_GE(a().connects, 1);
  b().refuse = true;
  b().break_last();
  settle();
  Side& side = get_all(client);
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UF,URX");
  EXPECT_THAT(side.body, HasSubstr("refused"));
}

TEST_F(Retry, AFailedConnectIsSaid) {
  route("");
  a().refuse = true;
  Side& side = get_all(connect());
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UF");
  EXPECT_EQ(a().connects, 1);
  EXPECT_EQ(cluster_stats("a").connect_failures.value(), 1u);
}

TEST_F(Retry, RepeatsAfterAReset) {
  route("  retry: {on: [reset], attempts: 1}", "pair");
  auto broken = [this](Backend& one) {
    one.silent = false;
    one.reply = [&one](Side&) { one.break_last(); };
  };
  broken(a());
  Client& client = connect();
  for (int i = 0; i < 2; ++i) {
    Side& side = get_all(client, "body");
    EXPECT_EQ(status(side), 200);
    EXPECT_EQ(side.body, "POST /|shop.example|body");
  }
  EXPECT_EQ(b().requests.size(), 2u);
  EXPECT_EQ(a().requests.size(), 1u);
  broken(b());
  Side& side = get_all(client);
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "URX,UC");
}

TEST_F(Retry, ALostConnectionWithoutARetryIs503) {
  route("");
  a().reply = [this](Side&) { a().break_last(); };
  Side& side = get_all(connect());
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UC");
  EXPECT_EQ(a().requests.size(), 1u);
}

TEST_F(Retry, TimeOfOneTry) {
  route("  retry: {on: [gateway-error], attempts: 1, perTryTimeout: 1s}", "pair");
  a().silent = b().silent = true;
  Client& client = connect();
  Side& side = client.send("GET", "/");
  settle();
  EXPECT_EQ(a().requests.size() + b().requests.size(), 1u);
  advance(milliseconds(1000));
  advance(milliseconds(100));  // the pause
  EXPECT_EQ(a().requests.size(), 1u);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_FALSE(side.ended);
  advance(milliseconds(1000));
  ASSERT_TRUE(side.ended);
  EXPECT_EQ(status(side), 504);
  EXPECT_EQ(flags(side), "URX,UT");
  EXPECT_EQ(stats_.timeouts.value(), 2u);
  EXPECT_FALSE(a().request().reset.empty());  // nobody waits for these any more
  EXPECT_FALSE(b().request().reset.empty());
}

TEST_F(Retry, ALimitOfRetriesAtATimeHolds) {
  a_options = "circuitBreakers: {default: {maxRetries: 1}}";
  route("  retry: {on: [5xx], attempts: 1, baseInterval: 10s}");
  a().reply = failing(100);
  Client& first = connect();
  Client& second = connect();
  Side& one = first.send("GET", "/");
  settle();
  Side& two = second.send("GET", "/");
  settle();
  EXPECT_FALSE(one.ended);  // waits for its second try
  ASSERT_TRUE(two.ended);   // gets none
  EXPECT_EQ(status(two), 503);
  EXPECT_EQ(cluster_stats("a").retries_refused.value(), 1u);
  for (int i = 0; i < 11; ++i) advance(seconds(1));
  EXPECT_TRUE(one.ended);
  EXPECT_EQ(a().requests.size(), 3u);
  // Its place came back.
  two.stream.reset();
  a().reply = failing(1);
  Side& three = second.send("GET", "/");
  for (int i = 0; i < 11; ++i) advance(seconds(1));
  EXPECT_EQ(status(three), 200);
}

TEST_F(Retry, ABudgetOfRetriesHolds) {
  a_options = "circuitBreakers: {default: {retryBudgetPercent: 20, minRetryConcurrency: 0}}";
  route("  retry: {on: [5xx], attempts: 1}");
  a().reply = failing(1);
  Side& side = get_all(connect());
  EXPECT_EQ(status(side), 503);  // 20 % of one request are no retry
  EXPECT_EQ(cluster_stats("a").retries_refused.value(), 1u);
}

TEST_F(Retry, ABodyThatIsTooLongIsSentOnce) {
  options_.replay_bytes = 1000;
  route("  retry: {on: [5xx], attempts: 2}");
  a().reply = failing(1);
  const std::string body(5000, 'x');
  Client& client = connect();
  // Piece by piece: the first byte opens the way to the endpoint.
  Side& side = client.begin("POST", "/", {{":length", "5000"}});
  for (size_t at = 0; at < body.size(); at += 500) {
    side.stream->send_data(io::as_bytes(std::string_view(body).substr(at, 500)), at + 500 == 5000);
    settle();
  }
  for (int i = 0; i < 5; ++i) advance(milliseconds(100));
  EXPECT_EQ(status(side), 503);
  ASSERT_EQ(a().requests.size(), 1u);
  EXPECT_EQ(a().request().body, body);
}

TEST_F(Retry, AStaleConnectionIsReplacedForGetOnly) {
  route("");
  Client& client = connect();
  EXPECT_EQ(status(get_all(client)), 200);
  a().silent = true;
  auto lose_it = [this](Side& side, size_t requests) {
    ASSERT_TRUE(until([&] { return a().requests.size() == requests; }));
    a().silent = false;
    a().break_last();
    settle();
    EXPECT_TRUE(side.ended);
    side.stream.reset();
  };
  Side& again = client.send("GET", "/");
  lose_it(again, 2);
  EXPECT_EQ(status(again), 200);
  EXPECT_EQ(flags(again), "-");
  EXPECT_EQ(a().requests.size(), 3u);
  EXPECT_EQ(a().connects, 2);
  EXPECT_EQ(a().field("x-envoy-attempt-count", 2), "1");  // it does not count
  EXPECT_EQ(stats_.retries.value(), 0u);
  EXPECT_EQ(cluster_stats("a").errors.value(), 0u);
  a().silent = true;
  Side& post = client.send("POST", "/", {}, "body");
  lose_it(post, 4);
  EXPECT_EQ(status(post), 503);
  EXPECT_EQ(flags(post), "UC");
  EXPECT_EQ(a().requests.size(), 4u);
}

// ---- Hedges.

TEST_F(Retry, HedgesFromTheBeginning) {
  route("  hedge: {initialRequests: 2}\n  retry: {on: [5xx], attempts: 1}", "pair");
  a().silent = true;
  Side& side = get_all(connect());
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(a().requests.size(), 1u);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_EQ(stats_.hedged.value(), 1u);
  EXPECT_FALSE(a().request().reset.empty());  // the slower one was dropped
}

TEST_F(Retry, HedgesATryThatIsLate) {
  route(
      "  hedge: {onPerTryTimeout: true}\n"
      "  retry: {on: [5xx], attempts: 1, perTryTimeout: 1s}",
      "pair");
  a().silent = b().silent = true;
  Client& client = connect();
  Side& side = client.send("GET", "/");
  settle();
  Backend& slow = a().requests.empty() ? b() : a();
  Backend& other = a().requests.empty() ? a() : b();
  advance(seconds(1));
  ASSERT_EQ(other.requests.size(), 1u);
  EXPECT_TRUE(slow.request().reset.empty());  // it goes on
  answer_default(slow.request());
  settle();
  EXPECT_EQ(status(side), 200);
  EXPECT_FALSE(other.request().reset.empty());
  EXPECT_EQ(stats_.hedged.value(), 1u);
}

// ---- Timeouts.

TEST_F(Retry, RouteTimeout) {
  route("  timeouts: {route: 3s}");
  a().silent = true;
  Client& client = connect();
  Side& side = client.begin("POST", "/", {{":length", "2"}});
  advance(seconds(5));  // counts from the request's end
  side.stream->send_data(io::as_bytes("ab"), true);
  settle();
  EXPECT_FALSE(side.ended);
  advance(seconds(3));
  ASSERT_TRUE(side.ended);
  EXPECT_EQ(status(side), 504);
  EXPECT_EQ(flags(side), "UT");
  EXPECT_EQ(side.body, "upstream request timeout");
  EXPECT_EQ(stats_.timeouts.value(), 1u);
  EXPECT_FALSE(a().request().reset.empty());
}

TEST_F(Retry, RouteTimeoutOfAnAnswerThatHasBegunCutsIt) {
  route("  timeouts: {route: 3s}");
  a().reply = [](Side& side) {
    HeadPtr head = take_head();
    head->status = 200;
    side.stream->send_head(*head, false);
    side.stream->send_data(io::as_bytes("part"), false);
  };
  Client& client = connect();
  Side& side = client.send("GET", "/");
  settle();
  EXPECT_EQ(side.body, "part");
  advance(seconds(3));
  EXPECT_FALSE(side.ended);
  EXPECT_FALSE(side.reset.empty());
}

TEST_F(Retry, GrpcClientsGetAGrpcStatus) {
  route("  timeouts: {route: 3s, maxGrpc: 10s}");
  a().http2 = true;
  a().silent = true;
  a_options = "protocol: http2";
  route("  timeouts: {route: 3s, maxGrpc: 10s}");
  Client& client = connect(true);
  Side& side = client.send("POST", "/s/m", {{"content-type", "application/grpc"},
                                            {"grpc-timeout", "5S"}});
  advance(seconds(4));
  EXPECT_FALSE(side.ended);
  advance(seconds(1));
  ASSERT_TRUE(side.ended);
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(field(side, "grpc-status"), "4");
  EXPECT_EQ(field(side, "grpc-message"), "upstream request timeout");
  EXPECT_EQ(field(side, "content-type"), "application/grpc");
  EXPECT_EQ(flags(side), "UT");
  // Another error, another status.
  a().break_last();
  a().refuse = true;
  settle();
  Side& down = ask(client, "POST", "/s/m", {{"content-type", "application/grpc"}});
  EXPECT_EQ(field(down, "grpc-status"), "14");
}

TEST_F(Retry, IdleStreams) {
  route("  timeouts: {route: 0s, idle: 2s}");
  a().silent = true;
  Client& client = connect();
  Side& side = client.begin("POST", "/", {{":length", "4"}});
  for (int i = 0; i < 3; ++i) {
    advance(milliseconds(1500));
    side.stream->send_data(io::as_bytes("x"), false);
    settle();
  }
  EXPECT_FALSE(side.ended);
  EXPECT_EQ(a().request().body, "xxx");
  advance(milliseconds(2000));
  EXPECT_EQ(status(side), 408);
  EXPECT_EQ(flags(side), "SI");
}

TEST_F(Retry, AClientOfHttp2ThatStopsInItsBody) {
  route("  timeouts: {route: 0s, idle: 2s}");
  a().silent = true;
  Client& client = connect(true);
  Side& side = client.begin("POST", "/", {{":length", "4"}});
  side.stream->send_data(io::as_bytes("x"), false);
  settle();
  EXPECT_EQ(a().request().body, "x");
  advance(milliseconds(1500));
  EXPECT_FALSE(side.ended);
  advance(milliseconds(1000));
  EXPECT_EQ(status(side), 408);
  EXPECT_EQ(flags(side), "SI");
}

TEST_F(Retry, TheChainsIdleTimeoutHoldsWhereTheRouteHasNone) {
  ProxyYaml yaml;
  yaml.http = "streamIdleTimeout: 2s";
  yaml.routes = R"(- {match: {path: /own}, cluster: a, timeouts: {route: 0s, idle: 10s}}
- {match: {prefix: /}, cluster: a, timeouts: {route: 0s}})";
  configure(yaml);
  a().silent = true;
  Side& side = connect().send("GET", "/");
  Side& own = connect().send("GET", "/own");
  settle();
  advance(seconds(3));
  EXPECT_EQ(status(side), 504);
  EXPECT_FALSE(own.ended);
  advance(seconds(8));
  EXPECT_EQ(status(own), 504);
}

TEST_F(Retry, AStreamsWholeTime) {
  route("  timeouts: {maxStream: 4s}");
  a().silent = true;
  Client& client = connect();
  Side& side = client.begin("POST", "/", {{":length", "100"}});
  for (int i = 0; i < 3; ++i) {
    advance(seconds(1));
    side.stream->send_data(io::as_bytes("x"), false);
  }
  EXPECT_FALSE(side.ended);
  advance(seconds(1));
  EXPECT_EQ(status(side), 408);
  EXPECT_EQ(flags(side), "UMSDR");
}

// ---- Circuit breakers and health.

TEST_F(Retry, TooManyRequestsOfAClusterAre503) {
  a_options = "circuitBreakers: {default: {maxRequests: 1}}";
  route("");
  a().silent = true;
  Side& first = connect().send("GET", "/");
  settle();
  Side& second = get(connect(), "/");
  EXPECT_EQ(status(second), 503);
  EXPECT_EQ(flags(second), "UO");
  EXPECT_EQ(cluster_stats("a").request_overflow.value(), 1u);
  EXPECT_EQ(a().requests.size(), 1u);
  answer_default(a().request());
  ASSERT_TRUE(until([&] { return first.ended; }));
  a().silent = false;
  EXPECT_EQ(status(get(connect(), "/")), 200);
}

TEST_F(Retry, TooManyWaitingRequestsAre503) {
  a_options = "circuitBreakers: {default: {maxConnections: 1, maxPending: 1}}";
  route("");
  a().silent = true;
  connect().send("GET", "/1");
  settle();
  Side& waits = connect().send("GET", "/2");
  settle();
  Side& refused = get(connect(), "/3");
  EXPECT_EQ(status(refused), 503);
  EXPECT_EQ(flags(refused), "UO");
  a().silent = false;
  answer_default(a().request());
  ASSERT_TRUE(until([&] { return waits.ended; }));
  EXPECT_EQ(status(waits), 200);
  EXPECT_EQ(a().connects, 1);
}

TEST_F(Retry, NoHealthyEndpoint) {
  route("", "sick", R"(- name: sick
  loadBalancer: {panicPercent: 0}
  endpoints: [{address: "10.0.0.1:80", health: unhealthy}])");
  Side& side = get(connect(), "/");
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UH");
  EXPECT_EQ(side.body, "no healthy upstream");
  EXPECT_EQ(cluster_stats("sick").no_host.value(), 1u);
}

TEST_F(Retry, AnEndpointThatResetsIsEjected) {
  route("", "pair2", R"(- name: pair2
  loadBalancer: {panicPercent: 0}
  outlierDetection: {consecutive5xx: 3, maxEjectionPercent: 50}
  endpoints: [{address: "10.0.0.1:80"}, {address: "10.0.0.2:80"}])");
  a().reply = [this](Side&) { a().break_last(); };
  Client& client = connect();
  int failed = 0;
  for (int i = 0; i < 20; ++i) failed += status(get_all(client)) == 503 ? 1 : 0;
  EXPECT_EQ(failed, 3);
  EXPECT_EQ(a().requests.size(), 3u);
  EXPECT_EQ(b().requests.size(), 17u);
}

TEST_F(Retry, AClientThatLeavesIsNobodysFault) {
  a_options = "outlierDetection: {consecutive5xx: 1, maxEjectionPercent: 100}\nloadBalancer: {panicPercent: 0}";
  route("");
  a().silent = true;
  Client& client = connect();
  client.send("GET", "/");
  ASSERT_TRUE(until([&] { return a().requests.size() == 1; }));
  client.stream->break_connection();
  ASSERT_TRUE(until([&] { return client.gone; }));
  settle();
  EXPECT_FALSE(a().request().reset.empty());
  EXPECT_EQ(stats_.active_requests.value(), 0u);
  a().silent = false;
  EXPECT_EQ(status(get(connect(), "/")), 200);
}

TEST_F(Retry, OverloadIs503) {
  options_.max_requests = 1;
  route("");
  a().silent = true;
  Side& first = connect().send("GET", "/");
  settle();
  Side& second = get(connect(), "/");
  EXPECT_EQ(status(second), 503);
  EXPECT_EQ(second.body, "overloaded");
  EXPECT_EQ(stats_.overloaded.value(), 1u);
  answer_default(a().request());
  ASSERT_TRUE(until([&] { return first.ended; }));
  a().silent = false;
  EXPECT_EQ(status(get(connect(), "/")), 200);
}

}  // namespace
}  // namespace edgemesh::proxy
