// Rendezvous: passes peer-to-peer signalling between nodes. The content is the peers' affair; the
// cloud adds who sent it (from the sender's certificate) and limits how much.
//
//   edge > cloud   group mesh, operation signal, resource peer/<destination>, any content
//   cloud > edge   the same content, resource peer/<sender>
//   cloud > edge   operation error, resource peer/<destination>, {"reason": "..."}: not delivered
// Threads: one loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cloud/node_link.h"
#include "cloud/rate_limit.h"
#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"

namespace edgemesh::cloud {

struct RendezvousOptions {
  size_t max_bytes = 32 << 10;  // of one content
  Rate sender_rate{.per_second = 100, .burst = 1000};
  Rate receiver_rate{.per_second = 1000, .burst = 5000};  // many senders must not flood one node
};

class Rendezvous {
 public:
  Rendezvous(io::Loop& loop, NodeLink& link, RendezvousOptions options, obs::Registry& registry);
  ~Rendezvous() { *alive_ = false; }
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  void on_signal(const std::string& from, const channel::Message& message);
  // Where nodes are that are not connected here, as Siblings::pass; may stay empty.
  using Done = UniqueFunction<void(Result<>)>;
  using Elsewhere = std::function<void(const std::string& from, const std::string& to,
                                       std::string content, Done done)>;
  void set_elsewhere(Elsewhere elsewhere) { elsewhere_ = std::move(elsewhere); }
  // A signal that another cloud took. kNotFound: the node is not connected here.
  // kResourceExhausted: it gets too many. kInvalidArgument.
  Result<> deliver(const std::string& from, const std::string& to, const std::string& content);

 private:
  void refuse(const std::string& from, const std::string& to, const std::string& parent,
              std::string_view why);
  // Empty when the signal may pass, else the reason why not.
  std::string refusal(const std::string& from, const std::string& to,
                      const channel::Message& message);

  io::Loop& loop_;
  NodeLink& link_;
  RendezvousOptions options_;
  Elsewhere elsewhere_;
  KeyedLimiter senders_;
  KeyedLimiter receivers_;
  KeyedLimiter errors_;  // error replies: a few, so that a flood is not answered by another
  obs::Counter& passed_;
  obs::Counter& undeliverable_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
