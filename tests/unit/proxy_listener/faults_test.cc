// Faults of endpoints, counted on three sides: what clients got, what the proxy says, what the
// origin saw. The requests that fail are those that had to.
#include "tests/unit/proxy_listener/faults_fixture.h"

namespace edgemesh::proxy {
namespace {

// An HTTP/1 server that fails as the path says, once it has a request's head.
class Origin {
 public:
  explicit Origin(io::Loop& loop) : loop_(loop) {
    listener_ = std::move(*io::TcpListener::listen(
        loop, SockAddr{IpAddr::v4(0x7f000001), 0}, [this](io::Fd fd, const SockAddr&) {
          auto stream = io::TcpStream::adopt(loop_, std::move(fd));
          if (stream)
            connections_.push_back(std::make_unique<Connection>(*this, std::move(*stream)));
        }));
  }
  SockAddr addr() const { return listener_->local_addr(); }
  int seen = 0;  // heads

 private:
  class Connection final : public io::Stream::Handler {
   public:
    Connection(Origin& origin, std::unique_ptr<io::Stream> stream)
        : origin_(origin), stream_(std::move(stream)) {
      stream_->set_handler(this);
      on_readable();
    }
    void on_readable() override {
      uint8_t piece[16384];
      while (stream_ != nullptr) {
        const io::IoResult got = stream_->read(piece);
        if (got.status == io::IoResult::kEof) return end(false);
        if (got.status != io::IoResult::kOk) return;
        input_ += io::as_text({piece, got.n});
        while (stream_ != nullptr && step()) {
        }
      }
    }
    void on_writable() override {}
    void on_error(const Error&) override { end(false); }

   private:
    // False: more has to come.
    bool step() {
      const size_t head = input_.find("\r\n\r\n");
      if (head == std::string::npos) return false;
      if (!counted_) {
        ++origin_.seen;
        counted_ = true;
      }
      const std::string path = input_.substr(
          input_.find(' ') + 1, input_.find(' ', input_.find(' ') + 1) - input_.find(' ') - 1);
      const size_t field = input_.find("content-length: ");
      const size_t length =
          field != std::string::npos && field < head ? std::stoul(input_.substr(field + 16)) : 0;
      if (path == "/reset-head") return end(true), false;
      if (path == "/early") {
        say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly");
        stream_->shutdown_write();
        input_.clear();
        return false;
      }
      if (path == "/never") return false;
      if (path == "/reset-body" && input_.size() > head + 4) return end(true), false;
      if (input_.size() < head + 4 + length) return false;
      input_.erase(0, head + 4 + length);
      counted_ = false;
      if (path == "/reset-answer") {
        say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        origin_.loop_.defer([this] { end(true); });
        return false;
      }
      say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
      if (path == "/close-after") return end(false), false;
      return true;
    }
    void say(std::string_view text) { stream_->write(io::as_bytes(text)); }
    void end(bool reset) {
      if (stream_ == nullptr) return;
      if (reset) stream_->reset();
      if (!reset) stream_->close_both();
      origin_.loop_.defer([stream = std::move(stream_)] {});
    }
    Origin& origin_;
    std::unique_ptr<io::Stream> stream_;
    std::string input_;
    bool counted_ = false;
  };
  io::Loop& loop_;
  std::unique_ptr<io::TcpListener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

class FaultsOfHttp1 : public FaultsTest {
 protected:
  Origin origin_{*loop_};
};

constexpr int kEach = 15;

TEST_F(FaultsOfHttp1, NoFault) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(kEach, get("/ok"));
  EXPECT_EQ(got.fine, kEach);
  EXPECT_EQ(origin_.seen, kEach);
  EXPECT_EQ(answers("2xx"), kEach);
}

TEST_F(FaultsOfHttp1, AResetBeforeTheAnswer) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(kEach, post("/reset-head", 10));
  EXPECT_EQ(got.errors, kEach);
  EXPECT_EQ(origin_.seen, kEach);  // what may have had an effect is not sent twice
  EXPECT_EQ(answers("5xx"), kEach);
}

TEST_F(FaultsOfHttp1, AResetBeforeTheAnswerWithAnotherEndpointAndRetries) {
  // Every second try comes to the one that resets.
  ASSERT_TRUE(put({origin_.addr(), http_}, ", retry: {on: [reset, connect-failure], attempts: 2}"));
  const Counts got = ask(kEach, get("/reset-head"), milliseconds(500));  // tries are spaced
  EXPECT_EQ(got.fine, kEach);
  EXPECT_GT(origin_.seen, 0);
  EXPECT_EQ(answers("2xx"), kEach);
  EXPECT_EQ(answers("5xx"), 0);
}

TEST_F(FaultsOfHttp1, AResetInTheRequestsBody) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(kEach, post("/reset-body", 100'000));
  EXPECT_EQ(got.errors, kEach);
  EXPECT_EQ(origin_.seen, kEach);
  EXPECT_EQ(answers("5xx"), kEach);
}

TEST_F(FaultsOfHttp1, AResetInTheAnswerCutsIt) {
  ASSERT_TRUE(put({origin_.addr()}, ", retry: {on: [reset], attempts: 2}"));
  const Counts got = ask(kEach, get("/reset-answer"));
  EXPECT_EQ(got.cut, kEach);  // a part has left: it cannot be tried again
  EXPECT_EQ(origin_.seen, kEach);
}

TEST_F(FaultsOfHttp1, AnAnswerBeforeTheRequestEnds) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(kEach, post("/early", 300'000));
  EXPECT_EQ(got.fine, kEach);
  EXPECT_EQ(origin_.seen, kEach);
  EXPECT_EQ(answers("2xx"), kEach);
}

TEST_F(FaultsOfHttp1, ConnectionsThatEndAfterEachAnswer) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(kEach, get("/close-after"));
  EXPECT_EQ(got.fine, kEach);
  EXPECT_EQ(origin_.seen, kEach);
}

TEST_F(FaultsOfHttp1, NoAnswerAtAll) {
  ASSERT_TRUE(put({origin_.addr()}));
  const Counts got = ask(4, get("/never"), seconds(5));
  EXPECT_EQ(got.errors, 4);
  EXPECT_EQ(origin_.seen, 4);
  EXPECT_EQ(answers("5xx"), 4);
}

TEST_F(FaultsOfHttp1, NobodyListens) {
  const SockAddr gone = [this] { return Origin(*loop_).addr(); }();
  ASSERT_TRUE(put({gone}));
  EXPECT_EQ(ask(4, get("/ok")).errors, 4);
  ASSERT_TRUE(put({gone, origin_.addr()}, ", retry: {on: [connect-failure], attempts: 1}"));
  EXPECT_EQ(ask(kEach, get("/ok"), milliseconds(500)).fine, kEach);
  EXPECT_EQ(origin_.seen, kEach);
}

// The list of endpoints, and with it the configuration, changes with almost every request; those
// that go are alive, so nothing may fail.
TEST_F(FaultsOfHttp1, EndpointsComeAndGoUnderLoad) {
  Origin second(*loop_), third(*loop_);
  const std::vector<std::vector<SockAddr>> lists = {{origin_.addr()},
                                                    {second.addr()},
                                                    {origin_.addr(), third.addr()},
                                                    {third.addr(), second.addr()},
                                                    {origin_.addr(), second.addr(), third.addr()}};
  ASSERT_TRUE(put(lists[0]));
  constexpr int kClients = 8, kRounds = 150;
  std::vector<test::Collector*> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(&dial("l"));
  int answered = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (auto* client : clients) {
      client->received.clear();
      client->send(get("/ok"));
    }
    settle(1);
    ASSERT_TRUE(
        put(lists[static_cast<size_t>(round) % lists.size()]));  // with requests on their way
    for (auto* client : clients) {
      ASSERT_TRUE(until([&] { return whole(client->received) || client->failed || client->eof; }));
      EXPECT_THAT(client->received, HasSubstr(" 200 ")) << "round " << round;
      ++answered;
    }
  }
  EXPECT_EQ(answered, kClients * kRounds);
  EXPECT_EQ(origin_.seen + second.seen + third.seen, answered);
  EXPECT_EQ(answers("2xx"), answered);
  EXPECT_GT(std::min({origin_.seen, second.seen, third.seen}), 0);
}

}  // namespace
}  // namespace edgemesh::proxy
