// The seam between the hub (connections) and the controllers (what is said over them). The hub
// implements NodeLink and calls NodeEvents; tests put a fake on either side.
// Threads: one loop. No NodeEvents call runs from within a NodeLink call.
#pragma once

#include <memory>
#include <string>

#include "core/channel/message.h"

namespace edgemesh::cloud {

// An encoded channel message; one encoding is shared by all nodes it goes to.
using Frame = std::shared_ptr<const std::string>;

class NodeLink {
 public:
  virtual ~NodeLink() = default;
  virtual bool connected(const std::string& node) const = 0;
  // Queues a frame. False when the node is not connected, or was cut because its queue is full.
  virtual bool send(const std::string& node, Frame frame) = 0;
  bool send(const std::string& node, const channel::Message& message) {
    return send(node, std::make_shared<const std::string>(channel::encode(message)));
  }
  // NodeEvents::next_frame has something new. Coalesced: the hub asks in this turn's deferred
  // tasks.
  virtual void wake(const std::string& node) = 0;
  virtual void wake_all() = 0;
  // Stops and starts reading from a node: back-pressure while its requests are in work.
  virtual void pause(const std::string& node) = 0;
  virtual void resume(const std::string& node) = 0;
};

class NodeEvents {
 public:
  virtual ~NodeEvents() = default;
  // `node` is the name in the client certificate. A node that connects again while its old session
  // is still there is disconnected first.
  virtual void on_connected(const std::string& node) = 0;
  virtual void on_disconnected(const std::string& node) = 0;
  virtual void on_message(const std::string& node, channel::Message message) = 0;
  // The next frame of the bulk feed, asked for whenever the connection has room: a slow node is
  // asked less often and so never holds a queue of its own. Null: nothing now (wake() when there
  // is).
  virtual Frame next_frame(const std::string& node) = 0;
};

}  // namespace edgemesh::cloud
