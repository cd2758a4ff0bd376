#include "discovery/dns_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "core/io/udp.h"
#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::discovery {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace testing_parts;
using namespace std::chrono_literals;

// An upstream server on the test's loop: answers A of every name that begins with "www" or "big" with
// 192.0.2.1, others with NXDOMAIN; names with "mute" not at all, with "fail" by SERVFAIL.
class Upstream {
 public:
  explicit Upstream(io::Loop& loop)
      : socket_(*io::UdpSocket::bind(loop, {IpAddr::loopback(), 0},
                                     [this](auto data, size_t, const SockAddr& from) {
                                       on_query(data, from);
                                     },
                                     {})) {}
  SockAddr addr() const { return socket_->local_addr(); }
  int queries = 0;
  uint32_t ttl = 300;

 private:
  void on_query(std::span<const uint8_t> data, const SockAddr& from) {
    dns::Query query;
    if (dns::parse_query(data, query) != dns::Parsed::kQuery) return;
    ++queries;
    std::string name = text_of(query.name);
    if (name.find("mute") != std::string::npos) return;
    std::array<uint8_t, 4096> buffer;
    dns::Writer writer(buffer, buffer.size(), query);
    using Section = dns::Writer::Section;
    if (name.find("fail") != std::string::npos) {
      writer.set_rcode(dns::kServFail);
    } else if (name.rfind("www", 0) == 0) {
      if (query.type == dns::kA)
        writer.address(Section::kAnswer, dns::Writer::kQuestion, ttl, *IpAddr::parse("192.0.2.1"));
    } else if (name.rfind("big", 0) == 0) {
      for (int i = 0; i < 60; ++i)
        writer.address(Section::kAnswer, dns::Writer::kQuestion, ttl, *IpAddr::parse("192.0.2.1"));
    } else {
      writer.set_rcode(dns::kNxDomain);
      writer.soa(Section::kAuthority, *dns::Name::parse("com"), 60, 1);
    }
    (void)socket_->send_to(writer.finish(), from);
  }
  std::unique_ptr<io::UdpSocket> socket_;
};

class DnsServerTest : public testing::Test, public io::Stream::Handler {
 protected:
  void SetUp() override {
    upstream_ = std::make_unique<Upstream>(*loop_);
    fill(registry_);
    client_ = *io::UdpSocket::bind(*loop_, {IpAddr::loopback(), 0},
                                   [this](auto data, size_t, const SockAddr&) {
                                     replies_.emplace_back(data.begin(), data.end());
                                   },
                                   {});
    options_.listen = {{IpAddr::loopback(), 0}};
    options_.upstreams = {upstream_->addr()};
    options_.upstream_timeout = 200ms;
    options_.upstream_tries = 1;
  }
  void start() {
    server_ = *DnsServer::create(*loop_, options_, metrics_);
    server_->update(registry_.snapshot());
  }
  bool wait(const std::function<bool()>& done) { return loop_->run_until(done, 5s); }
  void send(const Bytes& bytes) { ASSERT_TRUE(client_->send_to(bytes, server_->local_addrs()[0]).value()); }
  Reply ask(const Bytes& bytes) {
    if (!server_) start();
    replies_.clear();
    send(bytes);
    if (!wait([&] { return !replies_.empty(); })) return Reply{0, 0, 999, {"no answer"}, {}, {}};
    return read_reply(replies_[0]);
  }
  Reply ask(std::string_view name, uint16_t type = dns::kA) { return ask(raw_query(name, type)); }

  // The TCP client.
  void connect() {
    tcp_ = *io::TcpStream::connect(*loop_, server_->local_addrs()[0]);
    tcp_->set_handler(this);
  }
  void tcp_send(const Bytes& message) {
    Bytes framed = {static_cast<uint8_t>(message.size() >> 8), static_cast<uint8_t>(message.size())};
    framed.insert(framed.end(), message.begin(), message.end());
    tcp_->write(framed);
  }
  void on_readable() override {
    uint8_t buffer[4096];
    for (;;) {
      auto r = tcp_->read(buffer);
      if (r.status == io::IoResult::kEof) tcp_ended_ = true;
      if (r.status != io::IoResult::kOk) return;
      tcp_in_.insert(tcp_in_.end(), buffer, buffer + r.n);
    }
  }
  void on_writable() override {}
  void on_error(const Error&) override { tcp_ended_ = true; }
  std::vector<Reply> tcp_replies() const {
    std::vector<Reply> list;
    for (size_t at = 0; at + 2 <= tcp_in_.size();) {
      size_t size = dns::get16(&tcp_in_[at]);
      if (at + 2 + size > tcp_in_.size()) break;
      list.push_back(read_reply(std::span<const uint8_t>(tcp_in_).subspan(at + 2, size)));
      at += 2 + size;
    }
    return list;
  }

  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  obs::Registry metrics_;
  Registry registry_{*loop_};
  DnsOptions options_;
  std::unique_ptr<Upstream> upstream_;
  std::unique_ptr<io::UdpSocket> client_;
  std::unique_ptr<DnsServer> server_;
  std::vector<Bytes> replies_;
  std::unique_ptr<io::TcpStream> tcp_;
  Bytes tcp_in_;
  bool tcp_ended_ = false;
};

TEST_F(DnsServerTest, AnswersServices) {
  EXPECT_THAT(ask("hello.default.svc.cluster.local").answers,
              ElementsAre("hello.default.svc.cluster.local. A 10.96.0.10"));
  EXPECT_EQ(upstream_->queries, 0);
}

TEST_F(DnsServerTest, EchoesEdns) {
  auto r = ask(with_edns(raw_query("hello.default.svc.cluster.local", dns::kA), 4096));

  EXPECT_THAT(r.additional, ElementsAre("OPT 1232"));
  EXPECT_EQ(r.rcode, dns::kNoError);
  EXPECT_EQ(ask(with_edns(raw_query("hello.default.svc.cluster.local", dns::kA), 4096, 1)).rcode,
            dns::kBadVers);
}

TEST_F(DnsServerTest, RefusesWhatItDoesNotServe) {
  EXPECT_EQ(ask(raw_query("version.bind", dns::kTxt, 3)).rcode, dns::kRefused);
  EXPECT_EQ(ask("cluster.local", dns::kAxfr).rcode, dns::kRefused);
  auto any = ask("hello.default.svc.cluster.local", dns::kAny);
  EXPECT_THAT(any.answers, ElementsAre(HasSubstr("TYPE13 9 bytes")));
  EXPECT_EQ(ask("nope.default.svc.cluster.local", dns::kAny).rcode, dns::kNxDomain);
  Bytes bad = raw_query("hello", dns::kA);
  bad.pop_back();
  EXPECT_EQ(ask(bad).rcode, dns::kFormErr);
}

TEST_F(DnsServerTest, DoesNotAnswerAnswers) {
  start();
  Bytes answer = raw_query("hello.default.svc.cluster.local", dns::kA);
  answer[2] |= 0x80;
  send(answer);
  send({1, 2, 3});

  EXPECT_THAT(ask("hello.default.svc.cluster.local").answers, testing::SizeIs(1));
  EXPECT_EQ(replies_.size(), 1u);
  EXPECT_THAT(metrics_.text(), HasSubstr("edgemesh_dns_dropped_total 2"));
}

TEST_F(DnsServerTest, ForwardsOtherNamesAndRemembersThem) {
  EXPECT_THAT(ask("www.example.com").answers, ElementsAre("www.example.com. A 192.0.2.1"));
  auto again = ask("WWW.example.com");

  EXPECT_THAT(again.answers, ElementsAre("www.example.com. A 192.0.2.1"));
  EXPECT_FALSE(again.has(dns::kFlagAa));
  EXPECT_EQ(upstream_->queries, 1);
  EXPECT_THAT(ask(with_edns(raw_query("www.example.com", dns::kA), 1232)).additional,
              ElementsAre("OPT 1232"));
}

TEST_F(DnsServerTest, RemembersNegativeAnswers) {
  EXPECT_EQ(ask("nope.example.com").rcode, dns::kNxDomain);
  EXPECT_EQ(ask("nope.example.com").rcode, dns::kNxDomain);
  EXPECT_EQ(upstream_->queries, 1);
  EXPECT_THAT(ask("www.example.com", dns::kAaaa).answers, IsEmpty());
}

TEST_F(DnsServerTest, DoesNotRememberTtlZero) {
  upstream_->ttl = 0;
  ask("www.example.com");
  ask("www.example.com");
  EXPECT_EQ(upstream_->queries, 2);
}

TEST_F(DnsServerTest, AsksTheSameQuestionOnce) {
  start();
  for (uint8_t i = 0; i < 5; ++i) {
    Bytes q = raw_query("www.example.com", dns::kA);
    q[1] = i;
    send(q);
  }
  ASSERT_TRUE(wait([&] { return replies_.size() == 5; }));
  EXPECT_EQ(upstream_->queries, 1);
  for (uint8_t i = 0; i < 5; ++i) EXPECT_EQ(replies_[i][1], i);
}

TEST_F(DnsServerTest, FailsWhenUpstreamsFail) {
  EXPECT_EQ(ask("mute.example.com").rcode, dns::kServFail);
  EXPECT_EQ(ask("fail.example.com").rcode, dns::kServFail);
  server_->set_upstreams({});
  EXPECT_EQ(ask("www.example.com").rcode, dns::kServFail);
}

TEST_F(DnsServerTest, AsksTheNextUpstreamWhenOneIsGone) {
  SockAddr gone = io::UdpSocket::bind(*loop_, {IpAddr::loopback(), 0}, [](auto, size_t, auto&) {}, {})
                      .value()->local_addr();
  options_.upstreams = {gone, upstream_->addr()};
  EXPECT_THAT(ask("www.example.com").answers, testing::SizeIs(1));
}

TEST_F(DnsServerTest, NeverAsksItself) {
  start();
  server_->set_upstreams({server_->local_addrs()[0]});
  EXPECT_EQ(ask("www.example.com").rcode, dns::kServFail);
  EXPECT_THAT(metrics_.text(), HasSubstr("edgemesh_dns_queries_total{proto=\"udp\"} 1\n"));
}

TEST_F(DnsServerTest, ResolvesExternalNamesThroughUpstream) {
  auto r = ask("ext.default.svc.cluster.local");

  EXPECT_THAT(r.answers, ElementsAre("ext.default.svc.cluster.local. CNAME www.example.com.",
                                     "www.example.com. A 192.0.2.1"));
  EXPECT_EQ(ask("ext.default.svc.cluster.local").answers.size(), 2u);
  EXPECT_EQ(upstream_->queries, 1);
}

TEST_F(DnsServerTest, TruncatesUpstreamAnswersForUdp) {
  auto r = ask("big.example.com");
  EXPECT_TRUE(r.has(dns::kFlagTc));
  EXPECT_THAT(r.answers, IsEmpty());
  EXPECT_EQ(ask(with_edns(raw_query("big.example.com", dns::kA), 1232)).answers.size(), 60u);
}

TEST_F(DnsServerTest, AsksNothingWithoutRecursionDesired) {
  Bytes q = raw_query("www.example.com", dns::kA);
  q[2] = 0;
  EXPECT_EQ(ask(q).rcode, dns::kRefused);
  EXPECT_EQ(upstream_->queries, 0);
}

TEST_F(DnsServerTest, AnswersPipelinedQueriesOverTcp) {
  start();
  connect();
  tcp_send(raw_query("big.example.com", dns::kA));
  tcp_send(raw_query("hello.default.svc.cluster.local", dns::kA));
  tcp_->shutdown_write();

  ASSERT_TRUE(wait([&] { return tcp_ended_; }));
  auto replies = tcp_replies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].answers.size(), 1u);  // known at once: not behind the one that waits
  EXPECT_EQ(replies[1].answers.size(), 60u);
}

TEST_F(DnsServerTest, ClosesTcpOnGarbageAndWhenIdle) {
  options_.tcp_idle_timeout = 50ms;
  start();
  connect();
  tcp_->write(Bytes{0, 3, 1, 2, 3});
  EXPECT_TRUE(wait([&] { return tcp_ended_; }));
  tcp_ended_ = false;
  connect();
  EXPECT_TRUE(wait([&] { return tcp_ended_; }));
}

TEST_F(DnsServerTest, LimitsTcpConnections) {
  options_.max_tcp_connections = 0;
  start();
  connect();
  EXPECT_TRUE(wait([&] { return tcp_ended_; }));
}

TEST_F(DnsServerTest, MayGoWhileQueriesWait) {
  start();
  send(raw_query("mute.example.com", dns::kA));
  ASSERT_TRUE(wait([&] { return upstream_->queries == 1; }));
  server_.reset();
  loop_->run_once();
}

TEST_F(DnsServerTest, SaysWhatIsWrongWithItsOptions) {
  options_.cluster_domain = "a..b";
  EXPECT_FALSE(DnsServer::create(*loop_, options_, metrics_));
  options_.cluster_domain = "cluster.local";
  start();
  options_.listen = server_->local_addrs();
  auto second = DnsServer::create(*loop_, options_, metrics_);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr(options_.listen[0].to_string()));
}

}  // namespace
}  // namespace edgemesh::discovery
