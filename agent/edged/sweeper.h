// Sweeper: removes the folders of pods that are gone, when the agent was ended between a pod's end
// and its tidying up: those of uids that neither the metastore nor the runtime knows. Not before
// the node has been up for a while, then once an hour.
// Threads: the loop given.
#pragma once

#include <memory>

#include "agent/cri/runtime_client.h"
#include "agent/edged/node_parts.h"

namespace edgemesh::edged {

class Sweeper {
 public:
  static constexpr Duration kFirst = std::chrono::minutes(10);
  static constexpr Duration kEvery = std::chrono::hours(1);

  // All borrowed.
  Sweeper(io::Loop& loop, cri::RuntimeClient& runtime, agent::MetaModule& meta, NodeParts& parts);
  ~Sweeper();

 private:
  void look();

  cri::RuntimeClient& runtime_;
  agent::MetaModule& meta_;
  NodeParts& parts_;
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
