// Faults of HTTP/2 endpoints in each state of an answer, counted on three sides: what clients got,
// what the proxy says, how many tries the origin saw.
#include <algorithm>

#include "tests/unit/proxy_listener/faults_fixture.h"
#include "tests/unit/proxy_listener/h2_origin.h"

namespace edgemesh::proxy {
namespace {

using At = H2Origin::At;
using Fault = H2Origin::Fault;
constexpr int kEach = 8;
constexpr char kHttp2[] = ", protocol: http2";

struct Case {
  Fault fault;
  const char* name;
  int tries;  // of a request that fails before the answer's head
  bool fine;  // it is no fault of the answer's
};
constexpr Case kCases[] = {
    {Fault::kReset, "Reset", 1, false},
    {Fault::kRefuse, "Refuse", 3, false},  // RFC 9113 8.7: repeated, but not for ever
    {Fault::kGoaway, "Goaway", 1, true},
    {Fault::kGoawayBelow, "GoawayBelow", 3, false},
    {Fault::kGoawayClose, "GoawayClose", 1, false},
    {Fault::kClose, "Close", 1, false},
    {Fault::kHalfClose, "HalfClose", 1, false},
    {Fault::kTcpReset, "TcpReset", 1, false},
    {Fault::kSilence, "Silence", 1, false},
    {Fault::kGarbage, "Garbage", 1, false},
};

class FaultsOfHttp2 : public FaultsTest, public testing::WithParamInterface<Case> {
 protected:
  Duration pass() const {
    return GetParam().fault == Fault::kSilence ? Duration(seconds(5)) : Duration{};
  }
  int n() const { return GetParam().fault == Fault::kSilence ? 2 : kEach; }
  H2Origin origin_{*loop_};
};

INSTANTIATE_TEST_SUITE_P(All, FaultsOfHttp2, testing::ValuesIn(kCases),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_P(FaultsOfHttp2, BeforeTheAnswer) {
  ASSERT_TRUE(put({origin_.addr()}, "", kHttp2));
  origin_.fault = GetParam().fault;
  for (const bool body : {false, true}) {
    SCOPED_TRACE(body);
    origin_.seen = 0;
    const Counts got = ask(n(), body ? post("/", 1000) : get("/"), pass());
    EXPECT_EQ(got.fine, GetParam().fine ? n() : 0);
    EXPECT_EQ(got.errors, GetParam().fine ? 0 : n());
    EXPECT_EQ(got.cut, 0);
    EXPECT_EQ(origin_.seen, n() * GetParam().tries);
  }
  EXPECT_EQ(answers("5xx"), GetParam().fine ? 0 : 2 * n());
  EXPECT_EQ(origin_.cancelled, GetParam().fault == Fault::kSilence ? 2 * n() : 0);
}

// Part of it has left: it is cut, and whatever a policy says not tried again.
TEST_P(FaultsOfHttp2, InTheAnswer) {
  ASSERT_TRUE(
      put({origin_.addr()}, ", retry: {on: [5xx, reset, refused-stream], attempts: 3}", kHttp2));
  origin_.fault = GetParam().fault;
  int answered = 0;
  for (const At at : {At::kAfterHead, At::kInBody, At::kBeforeTrailers}) {
    SCOPED_TRACE(static_cast<int>(at));
    origin_.at = at;
    origin_.seen = 0;
    const Counts got = ask(n(), get("/"), pass());
    EXPECT_EQ(got.fine, GetParam().fine ? n() : 0);
    EXPECT_EQ(got.cut, GetParam().fine ? 0 : n());
    EXPECT_EQ(got.errors, 0);
    EXPECT_EQ(origin_.seen, n());
    answered += n();
  }
  EXPECT_EQ(answers("2xx"), answered);
  // And then it is well again.
  origin_.fault = Fault::kNone;
  EXPECT_EQ(ask(kEach, get("/")).fine, kEach);
}

// With a policy and another endpoint none fails; the origin sees no more tries than it may.
TEST_P(FaultsOfHttp2, BeforeTheAnswerWithAnotherEndpoint) {
  H2Origin sound(*loop_);
  ASSERT_TRUE(put({origin_.addr(), sound.addr()},
                  ", retry: {on: [5xx, reset, refused-stream], attempts: 2, perTryTimeout: 2s}",
                  kHttp2));
  origin_.fault = GetParam().fault;
  const Counts got = ask(kEach, get("/"), seconds(2));
  EXPECT_EQ(got.fine, kEach);
  EXPECT_EQ(answers("5xx"), 0);
  EXPECT_LE(origin_.seen, kEach * GetParam().tries);
  EXPECT_EQ(sound.seen, kEach - (GetParam().fine ? origin_.seen : 0));
}

class Http2Faults : public FaultsTest {
 protected:
  struct Http2Client {
    h1test::ClientSide codec;
    std::list<Side> sides;
  };
  // `n` requests at once, each a stream of one connection.
  void ask_at_once(Http2Client& client, int n, std::string_view body = {}) {
    H2ClientOptions options;
    options.connected = false;
    client.codec.connection =
        make_h2_client(*loop_, *batch_, std::move(*io::TcpStream::connect(*loop_, addr_of("l"))),
                       options, &client.codec);
    ASSERT_TRUE(until([&] { return client.codec.connected > 0; }));
    for (int i = 0; i < n; ++i) {
      Side& side = client.sides.emplace_back();
      side.stream = client.codec.connection->open(&side);
      ASSERT_NE(side.stream, nullptr);
      HeadPtr head = take_head();
      head->method = body.empty() ? "GET" : "POST";
      head->scheme = "http";
      head->authority = "h";
      head->path = "/";
      side.stream->send_head(*head, body.empty());
      if (!body.empty()) side.stream->send_data(io::as_bytes(body), true);
    }
    ASSERT_TRUE(until([&] {
      return std::all_of(client.sides.begin(), client.sides.end(),
                         [](const Side& side) { return side.ended || !side.reset.empty(); });
    }));
  }
  static Counts counts(const Http2Client& client) {
    Counts out;
    for (const Side& side : client.sides) {
      const int status = side.head != nullptr ? side.head->status : 0;
      if (status == 200 && side.ended && side.body == "fine" && side.trailers == "x-sum=1;")
        ++out.fine;
      else if (status >= 500 && side.ended)
        ++out.errors;
      else
        ++out.cut;
    }
    return out;
  }
  H2Origin origin_{*loop_};
};

// Streams that fail beside others on the same connections do them no harm.
TEST_F(Http2Faults, OnlyTheStreamsThatFail) {
  ASSERT_TRUE(put({origin_.addr()}, "", kHttp2));
  for (const At at : {At::kBeforeHead, At::kAfterHead, At::kInBody, At::kBeforeTrailers}) {
    SCOPED_TRACE(static_cast<int>(at));
    origin_.at = at;
    origin_.fault = Fault::kReset;
    origin_.every = 4;
    origin_.seen = 0;
    Http2Client client;
    ask_at_once(client, 80);
    const Counts got = counts(client);
    EXPECT_EQ(got.fine, 60);
    EXPECT_EQ(got.errors, at == At::kBeforeHead ? 20 : 0);
    EXPECT_EQ(got.cut, at == At::kBeforeHead ? 0 : 20);
    EXPECT_EQ(origin_.seen, 80);
    client.sides.clear();
  }
  EXPECT_EQ(origin_.accepted, 1);
}

// A server that goes away again and again, as one that is replaced all the time: nothing fails,
// with a body or without. Those that a GOAWAY leaves behind are sent again.
TEST_F(Http2Faults, AServerThatGoesAwayUnderLoad) {
  ASSERT_TRUE(put({origin_.addr()}, "", kHttp2));
  for (const Fault fault : {Fault::kGoaway, Fault::kGoawayBelow, Fault::kRefuse}) {
    SCOPED_TRACE(static_cast<int>(fault));
    origin_.fault = fault;
    origin_.every = 15;  // a request is sent again twice at most
    origin_.seen = origin_.faults = 0;
    int fine = 0;
    for (int round = 0; round < 10; ++round) {
      Http2Client client;
      ask_at_once(client, 20, round % 2 == 0 ? "" : "a body");
      fine += counts(client).fine;
      client.sides.clear();
    }
    EXPECT_EQ(fine, 200);
    EXPECT_GT(origin_.faults, 10);
  }
  EXPECT_EQ(answers("2xx"), 600);
  EXPECT_GT(origin_.accepted, 20);
}

TEST_F(Http2Faults, ConnectionsThatAreResetWhenAccepted) {
  for (const char* protocol : {kHttp2, ""}) {
    SCOPED_TRACE(protocol);
    origin_.reset_accepted = true;
    origin_.accepted = 0;
    ASSERT_TRUE(put({origin_.addr()}, "", protocol));
    const Counts got = ask(kEach, get("/"));
    EXPECT_EQ(got.errors, kEach);
    EXPECT_EQ(origin_.accepted, kEach);
    origin_.accepted = 0;
    ASSERT_TRUE(
        put({origin_.addr()}, ", retry: {on: [reset, connect-failure], attempts: 2}", protocol));
    EXPECT_EQ(ask(2, get("/"), milliseconds(500)).errors, 2);
    EXPECT_EQ(origin_.accepted, 2 * 3);
  }
}

// It answers at once and reads no more than its windows let in: the client gets its answer, the
// stream is given up, and the connection serves others.
TEST_F(Http2Faults, AnAnswerWhileTheBodyIsLeftUnread) {
  ASSERT_TRUE(put({origin_.addr()}, "", kHttp2));
  origin_.early = true;
  Http2Client client;
  ask_at_once(client, 1, std::string(30'000, 'x'));
  EXPECT_EQ(counts(client).fine, 1);
  client.sides.clear();
  auto& one = dial("l");
  one.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n" +
           std::string(10'000, 'x'));
  ASSERT_TRUE(until([&] { return whole(one.received); }));
  EXPECT_THAT(one.received, HasSubstr(" 200 "));
  ASSERT_TRUE(until([&] { return origin_.cancelled == 1; }));
  origin_.early = false;
  EXPECT_EQ(ask(kEach, get("/")).fine, kEach);
  EXPECT_EQ(origin_.seen, 2 + kEach);
  EXPECT_EQ(origin_.accepted, 1);
}

}  // namespace
}  // namespace edgemesh::proxy
