// Datagrams in batches: one system call takes or gives up to 32 of them, and with the kernel's
// segmentation offloads (UDP_GRO, UDP_SEGMENT) each of those may be a train of up to 64 datagrams
// of one size. Boundaries are kept: a train is passed on as a train or one by one, never joined
// or split elsewhere. Datagrams may have 0 to 65,507 bytes (65,527 over IPv6).
// Threads: one loop's; a batch is shared by all sockets of a worker, what it holds is valid until
// the next receive().
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/net_addr.h"
#include "core/io/fd.h"

namespace edgemesh::proxy {

struct Datagram {
  std::span<const uint8_t> data;
  uint16_t segment = 0;  // > 0: a train of datagrams of this size, the last may be shorter

  size_t count() const {
    return segment == 0 || data.empty() ? 1 : (data.size() + segment - 1) / segment;
  }
};

// Where a datagram came from and whom it was sent to.
struct DatagramEnds {
  SockAddr from;
  SockAddr to;  // of the port 0 when the kernel did not say
};

class DatagramBatch {
 public:
  static constexpr size_t kMax = 32;

  DatagramBatch();

  struct Received {
    size_t n = 0;   // below kMax: the socket was emptied
    int error = 0;  // errno when n is 0: EAGAIN, or what an earlier datagram met (ICMP)
  };
  // `ends`: also ask for the addresses; then ends(i) may be called.
  Received receive(int fd, bool ends);
  const Datagram& at(size_t i) const { return items_[i]; }
  std::span<const Datagram> all(size_t n) const { return {items_.data(), n}; }
  DatagramEnds ends(size_t i) const;

 private:
  static constexpr size_t kBytes = 65'536;
  static constexpr size_t kControlBytes = 128;
  // Mapped when it is touched first: small datagrams cost a page each.
  std::unique_ptr<uint8_t[]> bytes_;
  std::array<Datagram, kMax> items_;
  std::array<mmsghdr, kMax> messages_{};
  std::array<iovec, kMax> parts_{};
  std::array<sockaddr_storage, kMax> names_{};
  struct alignas(cmsghdr) Control {
    char bytes[kControlBytes];
  };
  std::array<Control, kMax> controls_{};
};

struct SendOutcome {
  size_t taken = 0;      // items of the input that were sent or dropped; less only after `refused`
  size_t datagrams = 0;  // sent
  size_t bytes = 0;      // sent
  size_t dropped = 0;    // no room in the socket's buffer, too large for the route, no route
  bool refused = false;  // a port was unreachable: reported for an earlier datagram
};

// Sends on a socket that is connected, or to `to` when it is given. `source`: the address to send
// from, for a socket that is bound to all of them (null: the socket's own). Never waits.
SendOutcome send_datagrams(int fd, std::span<const Datagram> items, const SockAddr* to,
                           const IpAddr* source = nullptr);

// What a UDP socket of the proxy is opened with.
struct DatagramSocketOptions {
  bool transparent = false;  // may use addresses of others (CAP_NET_ADMIN)
  bool reuse_addr = false;
  bool reuse_port = false;
  bool destinations = false;  // tell whom datagrams were sent to
  bool gro = false;
  uint32_t mark = 0;
  int receive_bytes = 0;  // SO_RCVBUF, 0: the system's
};
// Not bound yet. Errors: no descriptor left, no privilege.
Result<io::Fd> open_datagram_socket(bool v6, const DatagramSocketOptions& options);
// The address that it got: with port 0 the system chooses one.
Result<SockAddr> bind_datagram_socket(int fd, const SockAddr& addr);

}  // namespace edgemesh::proxy
