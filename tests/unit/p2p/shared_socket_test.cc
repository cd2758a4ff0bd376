#include "p2p/shared_socket.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "core/base/net_addr.h"

namespace edgemesh::p2p {
namespace {

io::Fd bound(SockAddr* local) {
  io::Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage sa;
  socklen_t len = SockAddr{IpAddr::loopback(), 0}.to_sockaddr(&sa);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&sa), len), 0);  // NOLINT
  len = sizeof sa;
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&sa), &len);  // NOLINT
  *local = *SockAddr::from_sockaddr(reinterpret_cast<sockaddr*>(&sa), len);  // NOLINT
  return fd;
}

int first_byte(int fd) {
  pollfd p{fd, POLLIN, 0};
  if (poll(&p, 1, 1000) != 1) return -1;
  uint8_t data[16];
  return recv(fd, data, sizeof data, 0) > 0 ? data[0] : -1;
}

TEST(SharedSocketTest, StunStaysAndDataComesToTheSecondSocket) {
  SockAddr nice_addr, peer_addr;
  io::Fd nice = bound(&nice_addr);
  io::Fd peer = bound(&peer_addr);

  auto data = split_socket(nice.get());

  ASSERT_TRUE(data) << data.error().message;
  sockaddr_storage sa;
  socklen_t len = nice_addr.to_sockaddr(&sa);
  for (int byte : {0x00, 0x40, 0x01, 0x90, 0x03, 0xc3, 0x04}) {
    uint8_t packet[4] = {static_cast<uint8_t>(byte), 1, 2, 3};
    ASSERT_EQ(sendto(peer.get(), packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&sa), len), 4);  // NOLINT
    EXPECT_EQ(first_byte(byte <= 3 ? nice.get() : data->get()), byte);
  }
}

}  // namespace
}  // namespace edgemesh::p2p
