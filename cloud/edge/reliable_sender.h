// ReliableSender: brings the newest version of objects to nodes, and does not rest before each node
// has confirmed it (KubeEdge's reference, section 2.7: a message of this class is answered by a
// "response" whose parent_msg_id is its id).
//
// - For one object only the newest version matters: what changed while it waits is sent once.
// - Several messages are in flight for a node (KubeEdge: one), one for each object at most, bounded
// in number
//   and bytes. A message that a node does not confirm is sent again and holds up no other.
// - A node's queue holds references, not objects: the object is read when it is sent, and its
// encoding is
//   shared by all nodes that want the same version.
// - What was confirmed goes to the SyncBook. After a reconnect what was in flight is sent again.
// Threads: one loop.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cloud/edge/object_ref.h"
#include "cloud/edge/sync_book.h"
#include "cloud/node_link.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "kube/client.h"

namespace edgemesh::cloud {

class ReliableSender {
 public:
  struct Options {
    size_t max_in_flight = 64;                  // messages a node; edgecore's own queue takes 100
    size_t max_in_flight_bytes = 2 << 20;       // a node; one message is always allowed
    size_t max_reads = 64;                      // of objects, at a time, for all nodes
    Duration resend = std::chrono::seconds(5);  // doubles up to max_resend
    Duration max_resend = std::chrono::seconds(60);
  };

  ReliableSender(io::Loop& loop, kube::Client& client, NodeLink& link, SyncBook& book,
                 Options options, obs::Registry& registry);
  ~ReliableSender();

  void on_connected(const std::string& node);
  void on_disconnected(const std::string& node);
  // A response (or, with failed, an error) from a node. False: not to a message of this sender.
  bool on_answer(const std::string& node, const std::string& parent_id, bool failed);

  // The node shall have the object as it is now in the API. `version`: known to be at least this.
  void want(const std::string& node, const ObjectRef& ref, const std::string& version);
  // The object is gone, or is none of the node's business any more.
  void drop(const std::string& node, const ObjectRef& ref);

  // Not yet confirmed, of all connected nodes.
  size_t unconfirmed() const;
  size_t unconfirmed(const std::string& node) const;

 private:
  // kDelayed: refused by the node or not readable just now; tried again at `resend_at`.
  enum class State { kQueued, kReading, kInFlight, kDelayed };
  struct Item {
    ObjectRef ref;
    std::string version;  // wanted, at least; empty: unknown
    bool deletion = false;
    State state = State::kQueued;
    bool again = false;            // changed since it was read or sent
    std::vector<std::string> ids;  // of the messages sent for it
    size_t bytes = 0;
    int tries = 0;
    TimePoint resend_at{};
  };
  struct Sent {
    std::string uid, version;
    bool deletion;
    TimePoint at{};
  };
  struct Node {
    std::unordered_map<std::string, Item> items;    // by uid
    std::deque<std::string> queue;                  // uids, in the order of wanting
    std::unordered_map<std::string, Sent> waiting;  // by message id
    size_t in_flight = 0;                           // read or sent
    size_t bytes = 0;
  };
  struct Read {
    ObjectRef ref;
    std::vector<std::string> nodes;
    bool running = false;
  };
  // The same message for all nodes that want it.
  struct Encoded {
    std::string version, operation, message_id;
    Frame frame;
  };

  void put(const std::string& node, const ObjectRef& ref, const std::string& version,
           bool deletion);
  void pump_later(const std::string& name);
  void pump(const std::string& name, Node& node);
  void read(const std::string& name, const ObjectRef& ref);
  void run_reads();
  void on_read(const std::string& uid, Result<std::string> object);
  void deliver(const std::string& name, Node& node, Item& item, const Result<std::string>& object,
               const std::string& version);
  void send_object(const std::string& name, Node& node, Item& item, const std::string& object,
                   const std::string& version);
  void send_deletion(const std::string& name, Node& node, Item& item);
  void transmit(const std::string& name, Node& node, Item& item, const Encoded& message);
  void delay(const std::string& name, Node& node, Item& item);
  void schedule(const std::string& name, Item& item);
  void leave_flight(Node& node, Item& item);
  void requeue(const std::string& name, Node& node, Item& item);
  void settle(const std::string& name, Node& node, const std::string& uid);
  void tick();

  io::Loop& loop_;
  kube::Client& client_;
  NodeLink& link_;
  SyncBook& book_;
  Options options_;
  std::unordered_map<std::string, Node> nodes_;
  std::unordered_map<std::string, Encoded> encoded_;  // by uid; emptied in tick()
  std::set<std::string> to_pump_;
  std::unordered_map<std::string, Read> reads_;  // by uid
  std::deque<std::string> read_queue_;           // uids
  size_t reading_ = 0;
  std::multimap<TimePoint, std::pair<std::string, std::string>> deadlines_;  // node, uid
  io::Timer tick_timer_;
  obs::Counter& sent_;
  obs::Counter& resent_;
  obs::Counter& confirmed_;
  obs::Counter& refused_;
  obs::Histogram& confirm_time_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
