// NodeStreams: byte streams from the cloud to nodes, for what kubectl asks of pods. The node is
// asked over its channel to connect (core/channel/streams.h), so it may stand behind any NAT; one
// connection a node carries all its streams, each with its own flow control: one that is not read
// does not hold the others. Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cloud/node_link.h"
#include "core/base/function.h"
#include "core/http/h2.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"

namespace edgemesh::cloud {

class NodeStreams {
 public:
  struct Options {
    Duration connect_timeout = std::chrono::seconds(10);  // for the node to connect
    Duration idle_timeout = std::chrono::minutes(5);      // of a connection without streams
    Duration ping_every = std::chrono::seconds(15);
    Duration ping_limit = std::chrono::seconds(10);
    size_t max_streams = 64;   // a node
    size_t max_waiting = 256;  // a node: streams asked for before it has connected
  };
  NodeStreams(io::Loop& loop, NodeLink& link, Options options, obs::Registry& registry);
  ~NodeStreams();

  // `done` runs once, in a later turn. kUnavailable: the node is not connected, or does not connect
  // its streams. kResourceExhausted: too many streams.
  using Opened = UniqueFunction<void(Result<std::unique_ptr<io::Stream>>)>;
  void open(const std::string& node, Opened done);

  // A connection of `node`, by its certificate, whose notBefore is given. One that was there before
  // is cut: a node has one, so the old one is dead.
  void take(const std::string& node, int64_t not_before, std::unique_ptr<io::Stream> stream);
  // Cuts the connections of nodes whose certificate `check` refuses by now.
  void end_refused(const std::function<Result<>(const std::string&, int64_t)>& check);
  void drain();
  size_t sessions() const { return sessions_.size(); }

 private:
  class Session;
  struct Waiting {
    std::vector<Opened> opened;
    std::unique_ptr<io::Timer> timer;
  };
  // It goes in a later turn, since it may be on the stack. Nothing when it is not the node's any
  // more.
  void end(const std::string& node, const Session* only = nullptr);
  void answer(Opened done, Result<std::unique_ptr<io::Stream>> result);
  void give_up(const std::string& node);

  io::Loop& loop_;
  NodeLink& link_;
  Options options_;
  std::unordered_map<std::string, std::unique_ptr<Session>> sessions_;
  std::unordered_map<std::string, Waiting> waiting_;
  obs::Gauge& open_;
  obs::Counter& streams_;
  obs::Counter& failed_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
