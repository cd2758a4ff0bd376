#include "p2p/ice_path.h"

#include <algorithm>

#include "core/base/log.h"

namespace edgemesh::p2p {

namespace {
constexpr size_t kChannelHeader = 4;
constexpr size_t kMaxAllowed = 64;
}  // namespace

IcePath::IcePath(io::Loop& loop, const SockAddr& relay)
    : loop_(loop), relay_(relay), retry_(loop, [this] {
        if (receiver() != nullptr) receiver()->on_path_writable(*this);
      }) {}

void IcePath::allow(const IpAddr& ip) {
  if (allowed_.size() < kMaxAllowed) allowed_.insert(ip);
}

bool IcePath::set_pair(const IcePair& pair) {
  if (pair.data != nullptr && pair.data->valid()) {
    auto socket = io::UdpSocket::adopt(
        loop_, std::move(*pair.data),
        [this](std::span<const uint8_t> data, size_t segment, const SockAddr& from) {
          on_socket(data, segment, from);
        },
        true);
    if (socket) {
      (*socket)->set_on_writable([this] {
        if (receiver() != nullptr) receiver()->on_path_writable(*this);
      });
      sockets_[pair.data_port] = std::move(*socket);
    } else {
      EM_LOG(kWarn, "p2p", "the tunnel's socket: {}", socket.error().message);
    }
  }
  auto it = sockets_.find(pair.data_port);
  io::UdpSocket* socket = it == sockets_.end() ? nullptr : it->second.get();
  bool through_agent = pair.through_agent || socket == nullptr;
  bool changed = through_agent != through_agent_ || socket != socket_ || !(remote_ == pair.remote);
  through_agent_ = through_agent;
  socket_ = socket;
  remote_ = pair.remote;
  kind_ = pair.kind;
  local_text_ = pair.local_text;
  remote_text_ = pair.remote_text;
  if (allowed_.size() < kMaxAllowed) allowed_.insert(pair.remote.ip);
  return changed;
}

size_t IcePath::send(std::span<const uint8_t> train, size_t segment) {
  if (kind_ == PathKind::kNone) return train.size();
  if (segment == 0) segment = train.size();
  if (through_agent_) {
    size_t taken = agent_ == nullptr ? train.size() : agent_->send(train, segment);
    if (taken < train.size()) retry_.start(std::chrono::milliseconds(1));
    return taken;
  }
  auto sent = socket_->send_train(train, segment, remote_);
  return sent ? *sent : train.size();
}

void IcePath::on_agent_datagrams(std::span<const uint8_t> train, size_t segment) {
  if (receiver() != nullptr) receiver()->on_datagrams(*this, train, segment);
}

void IcePath::on_socket(std::span<const uint8_t> data, size_t segment, const SockAddr& from) {
  if (receiver() == nullptr || data.empty()) return;
  if (from == relay_ && relay_.port != 0) {
    // ChannelData (RFC 8656 12.4) of a relayed pair, which passes the filter: unwrap each.
    if (segment == 0) segment = data.size();
    while (!data.empty()) {
      auto one = data.first(std::min(segment, data.size()));
      data = data.subspan(one.size());
      if (one.size() < kChannelHeader || (one[0] & 0xf0) != 0x40) continue;
      size_t length = size_t{one[2]} << 8 | one[3];
      if (length == 0 || length + kChannelHeader > one.size()) continue;
      receiver()->on_datagrams(*this, one.subspan(kChannelHeader, length), 0);
    }
    return;
  }
  if (!allowed_.contains(from.ip)) return;
  receiver()->on_datagrams(*this, data, segment);
}

}  // namespace edgemesh::p2p
