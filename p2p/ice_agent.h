// IceAgent: one libnice agent with one stream and one component, seen from the worker loop. Control
// runs on the ice thread; results come back by post. Data on a direct pair does not touch libnice (see
// shared_socket.h); on a relayed pair it does.
//
// Follow on_ice_pair(): the pair in use changes while better ones are found. Threads: the worker loop.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/fd.h"
#include "core/io/loop.h"
#include "p2p/ice_thread.h"
#include "p2p/mesh.h"

namespace edgemesh::p2p {

struct IceOptions {
  bool controlling = false;
  std::vector<IpAddr> local;  // addresses to gather on
  TurnConfig turn;            // host is an address; empty: none
  bool relay_only = false;
};

struct IcePair {
  PathKind kind = PathKind::kNone;  // kPunched or kRelayed (either end)
  bool through_agent = false;       // our end is relayed: send() of the agent carries the data
  SockAddr remote;                  // where to send otherwise
  uint16_t data_port = 0;           // which data socket: an agent may have several
  std::shared_ptr<io::Fd> data;     // the socket, when it is a new one
  std::string local_text, remote_text;  // "10.0.0.2:4000 (host)"
};

class IceAgent {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // Once: what to signal. `candidates` are those found at once.
    virtual void on_ice_local(std::string ufrag, std::string pwd,
                              std::vector<std::string> candidates) = 0;
    virtual void on_ice_candidate(std::string candidate) = 0;
    virtual void on_ice_gathered() = 0;
    virtual void on_ice_pair(IcePair pair) = 0;
    virtual void on_ice_failed() = 0;
    // Data that came through libnice: of a relay, or from before the pair's socket was split.
    // A train as DatagramPath::Receiver::on_datagrams.
    virtual void on_ice_datagrams(std::span<const uint8_t> train, size_t segment) = 0;
  };

  static std::unique_ptr<IceAgent> create(io::Loop& worker, IceThread& thread, Handler& handler,
                                          IceOptions options);
  virtual ~IceAgent() = default;  // no callback after it

  virtual void set_remote(std::string ufrag, std::string pwd) = 0;
  virtual void add_candidates(std::vector<std::string> candidates) = 0;
  virtual void remote_done() = 0;
  // Through libnice, datagrams of `segment` bytes. Returns bytes taken.
  virtual size_t send(std::span<const uint8_t> train, size_t segment) = 0;
};

}  // namespace edgemesh::p2p
