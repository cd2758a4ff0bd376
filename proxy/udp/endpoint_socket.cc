#include "proxy/udp/endpoint_socket.h"

#include <cerrno>

#include "proxy/udp/udp_context.h"

namespace edgemesh::proxy {

namespace {
constexpr int kBatchesATurn = 4;
}

Result<std::unique_ptr<EndpointSocket>> EndpointSocket::connect(UdpContext& context,
                                                                const SockAddr& to, Owner& owner) {
  DatagramSocketOptions options;
  options.gro = true;
  for (const Cidr& cidr : context.options.capture_cidrs)
    if (cidr.contains(to.ip)) options.mark = context.options.mark;
  EM_TRY(io::Fd fd, open_datagram_socket(to.ip.is_v6(), options));
  sockaddr_storage storage;
  const socklen_t size = to.to_sockaddr(&storage);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0)  // NOLINT
    return fail_errno("connect", errno);
  return adopt(context, std::move(fd), owner);
}

Result<std::unique_ptr<EndpointSocket>> EndpointSocket::adopt(UdpContext& context, io::Fd fd,
                                                              Owner& owner) {
  const int raw = fd.get();
  std::unique_ptr<EndpointSocket> socket(new EndpointSocket(context, std::move(fd), owner));
  EM_TRY_VOID(socket->watch_.start(context.loop, raw, socket.get()));
  return socket;
}

void EndpointSocket::on_fd(bool readable, bool) {
  if (readable && receive_some()) context_.ready.add(*this);
}

bool EndpointSocket::receive_some() {
  DatagramBatch& batch = context_.batch;
  for (int i = 0; i < kBatchesATurn; ++i) {
    auto got = batch.receive(fd_.get(), false);
    if (got.n == 0) {
      if (got.error == ECONNREFUSED) owner_.on_refused();
      return false;
    }
    owner_.on_answers(batch.all(got.n));
    if (got.n < DatagramBatch::kMax) return false;
  }
  return true;
}

void ReadyQueue::add(EndpointSocket& socket) {
  sockets_.push_back(socket);
  timer_.start(Duration::zero());
}

void ReadyQueue::run() {
  // Those that have still more come again in the next turn.
  List<EndpointSocket> now;
  while (EndpointSocket* socket = sockets_.front()) now.push_back(*socket);
  while (EndpointSocket* socket = now.front()) {
    socket->unlink();
    if (socket->receive_some()) sockets_.push_back(*socket);
  }
  if (!sockets_.empty()) timer_.start(Duration::zero());
}

}  // namespace edgemesh::proxy
