#include "p2p/datagram_path.h"

namespace edgemesh::p2p {

Result<std::unique_ptr<UdpPath>> UdpPath::bind(io::Loop& loop, const SockAddr& local) {
  std::unique_ptr<UdpPath> path(new UdpPath);
  auto* raw = path.get();
  io::UdpSocket::Options options;
  options.gro = true;
  options.buffer_bytes = 4 << 20;
  EM_TRY(path->socket_,
         io::UdpSocket::bind(
             loop, local,
             [raw](std::span<const uint8_t> data, size_t segment, const SockAddr& from) {
               if (from == raw->remote_ && raw->receiver() != nullptr)
                 raw->receiver()->on_datagrams(*raw, data, segment);
             },
             options));
  path->socket_->set_on_writable([raw] {
    if (raw->receiver() != nullptr) raw->receiver()->on_path_writable(*raw);
  });
  return path;
}

size_t UdpPath::send(std::span<const uint8_t> train, size_t segment) {
  auto sent = socket_->send_train(train, segment == 0 ? train.size() : segment, remote_);
  return sent ? *sent : train.size();
}

}  // namespace edgemesh::p2p
