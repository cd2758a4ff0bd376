#include "proxy/udp/reply_sockets.h"

#include "udp_fixture.h"

namespace edgemesh::proxy::testing_parts {
namespace {

class ReplySocketsTest : public ::testing::Test {
 protected:
  std::unique_ptr<io::Loop> loop = std::move(*io::Loop::create());
  ReplySockets replies{2, false};
};

TEST_F(ReplySocketsTest, SendsFromTheAddressThatWasAskedFor) {
  TestSocket client(*loop);
  SockAddr from{*IpAddr::parse("127.0.0.77"), dead_port(*loop).port};
  Datagram item{as_span("answer")};
  SockAddr to = client.address();

  auto fd = replies.get(from);
  ASSERT_TRUE(fd) << fd.error().message;
  send_datagrams(*fd, {&item, 1}, &to);

  ASSERT_TRUE(loop->run_until([&] { return client.received == 1; }, std::chrono::seconds(20)));
  EXPECT_EQ(client.got[0].from, from);
}

TEST_F(ReplySocketsTest, TheLeastRecentlyUsedIsClosed) {
  uint16_t port = dead_port(*loop).port;
  auto from = [&](const char* ip) { return SockAddr{*IpAddr::parse(ip), port}; };
  auto name = [&](int fd) {
    sockaddr_storage storage;
    socklen_t size = sizeof storage;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return SockAddr{};
    return *SockAddr::from_sockaddr(reinterpret_cast<sockaddr*>(&storage), size);
  };
  int one = *replies.get(from("127.0.0.1"));
  int two = *replies.get(from("127.0.0.2"));
  EXPECT_EQ(*replies.get(from("127.0.0.1")), one);

  int three = *replies.get(from("127.0.0.3"));

  EXPECT_EQ(replies.size(), 2u);
  EXPECT_EQ(name(one), from("127.0.0.1"));
  EXPECT_EQ(name(three), from("127.0.0.3"));
  EXPECT_EQ(two, three) << "the second was the one to close, and its number was free again";
}

TEST_F(ReplySocketsTest, WhatComesForThemIsDropped) {
  SockAddr from{*IpAddr::parse("127.0.0.5"), dead_port(*loop).port};
  int fd = *replies.get(from);
  TestSocket sender(*loop);

  sender.send("x", from);

  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
