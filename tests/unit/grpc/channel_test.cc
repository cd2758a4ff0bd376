#include "core/grpc/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <optional>

#include "tests/support/temp_dir.h"
#include "tests/unit/grpc/fake_server.h"

namespace edgemesh::grpc {
namespace {

using namespace std::chrono_literals;
using test::FakeConnection;
using test::FakeServer;
using test::Fields;
using test::grpc_frame;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Request = FakeConnection::Request;
using Answer = std::optional<Result<std::string>>;

constexpr const char* kMethod = "/test.Echo/Say";

class ChannelTest : public ::testing::Test {
 protected:
  void open(ChannelOptions options = {}) {
    if (options.target.empty()) options.target = server.target();
    channel = Channel::create(*loop, options).value();
  }
  bool until(const std::function<bool()>& done) { return loop->run_until(done, 5s); }
  void call(Answer* into, std::string_view request = "hi", Duration timeout = 5s) {
    channel->unary(kMethod, request, timeout,
                   [into](Result<std::string> result) { into->emplace(std::move(result)); });
  }
  Result<std::string> unary(std::string_view request = "hi", Duration timeout = 5s) {
    Answer answer;
    call(&answer, request, timeout);
    EXPECT_FALSE(answer) << "answered from within the call";
    EXPECT_TRUE(until([&] { return answer.has_value(); }));
    return answer ? std::move(*answer) : fail(ErrorCode::kInternal, "no answer at all");
  }
  FakeConnection& last() { return *server.connections.back(); }

  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  FakeServer server{*loop};
  std::unique_ptr<Channel> channel;
};

TEST_F(ChannelTest, UnaryCallAndWhatTheServerSees) {
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("hello")); };
  open();
  auto got = unary("hi", 3s);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, "hello");
  const Request& seen = last().seen.at(0);
  EXPECT_EQ(seen.body, grpc_frame("hi"));
  EXPECT_EQ(seen.header(":method"), "POST");
  EXPECT_EQ(seen.header(":path"), kMethod);
  EXPECT_EQ(seen.header("te"), "trailers");
  EXPECT_EQ(seen.header("content-type"), "application/grpc");
  std::string timeout = seen.header("grpc-timeout");
  ASSERT_TRUE(timeout.ends_with("m")) << timeout;
  EXPECT_GT(std::stoi(timeout), 2000);
  EXPECT_LE(std::stoi(timeout), 3000);
}

TEST_F(ChannelTest, EmptyMessagesAreMessages) {
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("")); };
  open();
  auto got = unary("");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, "");
}

TEST_F(ChannelTest, LargeMessagesBothWays) {
  std::string large(6 << 20, 'x');
  server.script = [&](FakeConnection& c, const Request& r) { c.answer(r.id, r.body); };
  open();
  auto got = unary(large);
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_TRUE(*got == large);
}

TEST_F(ChannelTest, StatusComesFromTrailersWithItsMessageDecoded) {
  server.script = [](FakeConnection& c, const Request& r) {
    c.answer(r.id, "", {{"grpc-status", "5"}, {"grpc-message", "no container %22a%22 100%25"}});
  };
  open();
  auto got = unary();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(got.error().message, HasSubstr("no container \"a\" 100%"));
}

TEST_F(ChannelTest, BadlyEncodedMessageIsShownAsItCame) {
  server.script = [](FakeConnection& c, const Request& r) {
    c.answer(r.id, "", {{"grpc-status", "13"}, {"grpc-message", "50%, odd %zz"}});
  };
  open();
  auto got = unary();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(got.error().message, HasSubstr("50%, odd %zz"));
}

TEST_F(ChannelTest, TrailersOnly) {
  server.script = [](FakeConnection& c, const Request& r) {
    c.headers_only(r.id,
                   {{":status", "200"}, {"grpc-status", "12"}, {"grpc-message", "unknown method"}});
  };
  open();
  auto got = unary();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kProtocol);
  EXPECT_THAT(got.error().message, HasSubstr("unknown method"));
}

TEST_F(ChannelTest, EveryStatusHasACode) {
  EXPECT_EQ(error_of_status(1, "").code, ErrorCode::kCancelled);
  EXPECT_EQ(error_of_status(4, "").code, ErrorCode::kTimeout);
  EXPECT_EQ(error_of_status(6, "").code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(error_of_status(8, "").code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error_of_status(9, "").code, ErrorCode::kConflict);
  EXPECT_EQ(error_of_status(16, "").code, ErrorCode::kUnauthenticated);
  EXPECT_EQ(error_of_status(99, "").code, ErrorCode::kUnavailable);
  EXPECT_EQ(error_of_status(3, "").message, "gRPC status 3");
}

TEST_F(ChannelTest, AnswersThatAreNoGrpcAreErrors) {
  struct Case {
    std::function<void(FakeConnection&, int32_t)> reply;
    ErrorCode code;
    const char* words;
  };
  std::string two = grpc_frame("a") + grpc_frame("b");
  std::string compressed = grpc_frame("a");
  compressed[0] = 1;
  const Case cases[] = {
      {[](auto& c, int32_t id) {
         c.headers_only(id, {{":status", "503"}});
       },
       ErrorCode::kUnavailable, "HTTP 503"},
      {[](auto& c, int32_t id) { c.answer(id, grpc_frame("a"), {}); }, ErrorCode::kProtocol,
       "without a gRPC status"},
      {[](auto& c, int32_t id) { c.answer(id, ""); }, ErrorCode::kProtocol,
       "without a whole message"},
      {[](auto& c, int32_t id) { c.answer(id, grpc_frame("abc").substr(0, 6)); },
       ErrorCode::kProtocol, "whole message"},
      {[&](auto& c, int32_t id) { c.answer(id, two); }, ErrorCode::kProtocol, "more than one"},
      {[&](auto& c, int32_t id) { c.answer(id, compressed); }, ErrorCode::kProtocol, "compressed"},
      {[](auto& c, int32_t id) {
         c.answer(id, grpc_frame("a"), {{"grpc-status", "x"}});
       },
       ErrorCode::kProtocol, "without a gRPC status"},
      {[](auto& c, int32_t id) { c.reset(id, NGHTTP2_INTERNAL_ERROR); }, ErrorCode::kUnavailable,
       "reset"},
  };
  size_t at = 0;
  server.script = [&](FakeConnection& c, const Request& r) { cases[at].reply(c, r.id); };
  open();
  for (at = 0; at < std::size(cases); ++at) {
    auto got = unary();
    ASSERT_FALSE(got) << at;
    EXPECT_EQ(got.error().code, cases[at].code) << at << ' ' << got.error().message;
    EXPECT_THAT(got.error().message, HasSubstr(cases[at].words)) << at;
  }
  EXPECT_EQ(server.connections.size(), 1U) << "one bad answer ends one call";
}

TEST_F(ChannelTest, MessagesBeyondTheLimitEndTheCallBeforeTheyAreHeld) {
  server.script = [](FakeConnection& c, const Request& r) {
    if (r.body == grpc_frame("big"))
      c.begin(r.id, grpc_frame(std::string(2000, 'x')).substr(0, 100));  // the length is enough
    else
      c.answer(r.id, grpc_frame(std::string(1000, 'x')));
  };
  ChannelOptions options;
  options.max_message = 1000;
  open(options);
  auto got = unary("big");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(until([&] { return last().closed.contains(1); }));
  EXPECT_EQ(last().closed[1], static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_TRUE(unary());

  auto sent = unary(std::string(1001, 'y'));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(last().seen.size(), 2U) << "it was not sent";
}

TEST_F(ChannelTest, HeadersBeyondTheLimitEndTheCall) {
  server.script = [](FakeConnection& c, const Request& r) {
    if (r.body == grpc_frame("big"))
      c.answer(r.id, grpc_frame("a"), {{"grpc-status", "0"}, {"x", std::string(9000, 'x')}});
    else
      c.answer(r.id, grpc_frame("a"));
  };
  ChannelOptions options;
  options.max_header_bytes = 8000;
  open(options);
  auto got = unary("big");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kResourceExhausted) << got.error().message;
  EXPECT_TRUE(unary());
}

TEST_F(ChannelTest, DeadlineEndsTheCallAndTellsTheServer) {
  open();
  auto got = unary("hi", 20ms);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kTimeout);
  EXPECT_TRUE(until([&] { return last().closed.contains(1); }));
  EXPECT_EQ(last().closed[1], static_cast<uint32_t>(NGHTTP2_CANCEL));
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("late")); };
  EXPECT_TRUE(unary());
  EXPECT_EQ(server.connections.size(), 1U);
}

TEST_F(ChannelTest, DeadlineWhileTheRequestWaitsForRoom) {
  // The server's window is 64 KiB and it grants no more: the request is still held by HTTP/2.
  server.on_head = true;
  server.script = [](FakeConnection& c, const Request& r) {
    (void)c;
    (void)r;
  };
  open();
  auto got = unary(std::string(8 << 20, 'x'), 50ms);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kTimeout);
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("a")); };
  EXPECT_TRUE(unary());
}

TEST_F(ChannelTest, AnswerBeforeTheRequestWasRead) {
  server.on_head = true;
  server.script = [](FakeConnection& c, const Request& r) {
    c.headers_only(r.id, {{":status", "200"}, {"grpc-status", "8"}, {"grpc-message", "too large"}});
  };
  open();
  auto got = unary(std::string(8 << 20, 'x'));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(got.error().message, HasSubstr("too large"));
  EXPECT_TRUE(until([&] { return last().closed.contains(1); })) << "the rest is not sent";
  EXPECT_EQ(last().closed[1], static_cast<uint32_t>(NGHTTP2_CANCEL));
}

TEST_F(ChannelTest, ManyCallsShareOneConnection) {
  std::vector<int32_t> held;
  server.script = [&](FakeConnection& c, const Request& r) {
    held.push_back(r.id);
    if (held.size() < 50) return;
    for (auto id = held.rbegin(); id != held.rend(); ++id)
      c.answer(*id, grpc_frame(std::to_string(*id)));
  };
  open();
  std::vector<Answer> answers(50);
  for (Answer& answer : answers) call(&answer);
  EXPECT_TRUE(
      until([&] { return std::ranges::all_of(answers, [](auto& a) { return a.has_value(); }); }));
  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(answers[i] && *answers[i]) << i;
    EXPECT_EQ(**answers[i], std::to_string(2 * i + 1));
  }
  EXPECT_EQ(server.connections.size(), 1U);
}

TEST_F(ChannelTest, CallsBeyondTheLimitFail) {
  ChannelOptions options;
  options.max_calls = 2;
  open(options);
  std::vector<Answer> answers(3);
  for (Answer& answer : answers) call(&answer);
  EXPECT_TRUE(until([&] { return answers[2].has_value(); }));
  ASSERT_FALSE(*answers[2]);
  EXPECT_EQ(answers[2]->error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(answers[0] || answers[1]);
}

TEST_F(ChannelTest, BrokenConnectionFailsOpenCallsAndTheNextCallReconnects) {
  server.script = [](FakeConnection& c, const Request& r) {
    if (r.body == grpc_frame("cut in the answer")) c.begin(r.id, grpc_frame("abc").substr(0, 6));
    if (r.body == grpc_frame("garbage")) return c.send_raw(std::string(200, '\xff'));
    if (r.body == grpc_frame("ok")) return c.answer(r.id, grpc_frame("fine"));
    c.cut();
  };
  open();
  size_t connections = 0;
  for (const char* how : {"cut before the answer", "cut in the answer", "garbage"}) {
    auto got = unary(how);
    ASSERT_FALSE(got) << how;
    EXPECT_EQ(got.error().code, ErrorCode::kUnavailable) << how << ": " << got.error().message;
    auto again = unary("ok");
    ASSERT_TRUE(again) << how << ": " << again.error().message;
    EXPECT_EQ(server.connections.size(), ++connections + 1);
  }
}

TEST_F(ChannelTest, IdleConnectionThatBrokeIsReplaced) {
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("a")); };
  open();
  ASSERT_TRUE(unary());
  last().cut();
  // Its end is told to the client before the next connection's first byte.
  loop->run_once(10ms);
  auto got = unary();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(server.connections.size(), 2U);
}

TEST_F(ChannelTest, NobodyListensThere) {
  std::string target;
  {
    FakeServer gone(*loop);
    target = gone.target();
  }
  ChannelOptions options;
  options.target = target;
  open(options);
  auto got = unary();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(got.error().message, HasSubstr(target));
}

TEST_F(ChannelTest, GoawayLetsOpenCallsEndAndNewOnesGoElsewhere) {
  int32_t held = 0;
  server.script = [&](FakeConnection& c, const Request& r) {
    if (r.body != grpc_frame("slow")) return c.answer(r.id, grpc_frame("new"));
    held = r.id;
    c.goaway(r.id);
  };
  open();
  Answer slow;
  call(&slow, "slow");
  ASSERT_TRUE(until([&] { return held != 0; }));
  loop->run_once(10ms);
  auto got = unary("fast");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(server.connections.size(), 2U);
  EXPECT_FALSE(slow);
  server.connections[0]->answer(held, grpc_frame("old"));
  ASSERT_TRUE(until([&] { return slow.has_value(); }));
  ASSERT_TRUE(*slow) << slow->error().message;
  EXPECT_EQ(**slow, "old");
  EXPECT_TRUE(until([&] { return server.connections[0]->gone; }))
      << "a drained connection is closed";
}

TEST_F(ChannelTest, CallThatGoawayRefusedIsSentOnceMore) {
  bool refused = false;
  server.script = [&](FakeConnection& c, const Request& r) {
    if (!std::exchange(refused, true)) return c.goaway(0);
    c.answer(r.id, r.body);
  };
  open();
  auto got = unary("again");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, "again");
  EXPECT_EQ(server.connections.size(), 2U);
}

TEST_F(ChannelTest, CallThatIsAlwaysRefusedFails) {
  size_t tries = 0;
  server.script = [&](FakeConnection& c, const Request& r) {
    ++tries;
    c.reset(r.id, NGHTTP2_REFUSED_STREAM);
  };
  open();
  auto got = unary();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(tries, 2U);
}

TEST_F(ChannelTest, ServerStreamTellsEachMessageThenTheEnd) {
  int32_t id = 0;
  server.script = [&](FakeConnection& c, const Request& r) {
    id = r.id;
    c.begin(r.id, grpc_frame("one") + grpc_frame("two").substr(0, 6));
  };
  open();
  std::vector<std::string> got;
  std::optional<Result<>> end;
  auto stream = channel->server_stream(
      kMethod, "go", [&](std::string m) { got.push_back(std::move(m)); },
      [&](Result<> r) { end.emplace(std::move(r)); });
  EXPECT_TRUE(until([&] { return got.size() == 1; }));
  last().more(id, grpc_frame("two").substr(6) + grpc_frame("three"));
  EXPECT_TRUE(until([&] { return got.size() == 3; }));
  EXPECT_FALSE(end);
  last().finish(id, {{"grpc-status", "14"}, {"grpc-message", "bye"}});
  EXPECT_TRUE(until([&] { return end.has_value(); }));
  EXPECT_THAT(got, ElementsAre("one", "two", "three"));
  ASSERT_FALSE(*end);
  EXPECT_THAT(end->error().message, HasSubstr("bye"));
}

TEST_F(ChannelTest, EmptyServerStreamIsNoError) {
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, ""); };
  open();
  std::optional<Result<>> end;
  auto stream = channel->server_stream(
      kMethod, "", [](std::string) { FAIL(); }, [&](Result<> r) { end.emplace(std::move(r)); });
  EXPECT_TRUE(until([&] { return end.has_value(); }));
  EXPECT_TRUE(*end);
}

TEST_F(ChannelTest, DroppedStreamIsCancelledAndSilent) {
  server.script = [](FakeConnection& c, const Request& r) {
    c.begin(r.id, grpc_frame("a") + grpc_frame("b"));
  };
  open();
  int told = 0;
  std::unique_ptr<Call> stream;
  stream = channel->server_stream(
      kMethod, "",
      [&](std::string) {
        ++told;
        stream.reset();
      },
      [&](Result<>) { told += 100; });
  EXPECT_TRUE(until([&] { return !server.connections.empty() && last().closed.contains(1); }));
  EXPECT_EQ(last().closed[1], static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(told, 1);
}

TEST_F(ChannelTest, ChannelMayGoInItsCallbackAndWithOpenCalls) {
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("a")); };
  open();
  int told = 0;
  for (int i = 0; i < 3; ++i)
    channel->unary(kMethod, "", 5s, [&](Result<std::string>) {
      ++told;
      channel.reset();
    });
  EXPECT_TRUE(until([&] { return !server.connections.empty() && last().gone; }));
  EXPECT_EQ(told, 1);

  server.script = nullptr;
  open();
  Answer never;
  call(&never, "", 20ms);
  ASSERT_TRUE(until([&] { return server.connections.size() == 2 && last().seen.size() == 1; }));
  channel.reset();
  EXPECT_TRUE(until([&] { return last().gone; }));
  EXPECT_FALSE(never);
}

TEST_F(ChannelTest, UnixSocket) {
  test::TempDir dir;
  std::string path = dir.path() + "/s.sock";
  io::Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), addr.sun_path);
  ChannelOptions options;
  options.target = "unix://" + path;
  open(options);
  auto absent = unary();
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kUnavailable)
      << "not kNotFound, which is the server's to say";

  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&addr), sizeof(addr)), 0);  // NOLINT
  ASSERT_EQ(listen(listener.get(), 8), 0);
  server.script = [](FakeConnection& c, const Request& r) { c.answer(r.id, grpc_frame("local")); };
  Answer answer;
  call(&answer);
  server.serve(io::Fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
  ASSERT_TRUE(until([&] { return answer.has_value(); }));
  ASSERT_TRUE(*answer) << answer->error().message;
  EXPECT_EQ(**answer, "local");
}

TEST_F(ChannelTest, TargetsThatCannotBeUnderstood) {
  for (const char* target : {"", "containerd", "unix://relative", "10.0.0.1", "[::1]:x"}) {
    ChannelOptions options;
    options.target = target;
    EXPECT_FALSE(Channel::create(*loop, options)) << target;
  }
}

}  // namespace
}  // namespace edgemesh::grpc
