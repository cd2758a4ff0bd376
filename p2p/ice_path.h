// IcePath: the DatagramPath of one ICE agent. The pair below it changes while ICE finds better ones:
// a data socket beside libnice's for direct pairs, libnice itself while our end is relayed. Datagrams
// are taken from all sockets that the agent ever used, but only from addresses of the peer (any port:
// symmetric NATs) and from the relay. Threads: the worker loop.
#pragma once

#include <map>
#include <set>

#include "p2p/datagram_path.h"
#include "p2p/ice_agent.h"

namespace edgemesh::p2p {

class IcePath final : public DatagramPath {
 public:
  IcePath(io::Loop& loop, const SockAddr& relay);
  ~IcePath() override = default;

  void set_agent(IceAgent* agent) { agent_ = agent; }
  // True when the way of sending changed.
  bool set_pair(const IcePair& pair);
  void allow(const IpAddr& ip);  // up to 64
  void on_agent_datagrams(std::span<const uint8_t> train, size_t segment);

  size_t send(std::span<const uint8_t> train, size_t segment) override;
  PathKind kind() const override { return kind_; }
  std::string local_text() const override { return local_text_; }
  std::string remote_text() const override { return remote_text_; }

 private:
  void on_socket(std::span<const uint8_t> data, size_t segment, const SockAddr& from);

  io::Loop& loop_;
  SockAddr relay_;  // port 0: none
  IceAgent* agent_ = nullptr;
  PathKind kind_ = PathKind::kNone;
  bool through_agent_ = false;
  SockAddr remote_;
  std::string local_text_, remote_text_;
  std::map<uint16_t, std::unique_ptr<io::UdpSocket>> sockets_;  // by local port
  io::UdpSocket* socket_ = nullptr;
  std::set<IpAddr> allowed_;
  io::Timer retry_;  // libnice does not tell when it can send again
};

}  // namespace edgemesh::p2p
