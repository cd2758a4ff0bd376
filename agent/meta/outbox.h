// Outbox: messages from the node to the cloud that must not be lost: status of pods and of the
// node, patches, registrations. They are on disk until the cloud has answered them, over restarts
// and outages.
//
// - For one (resource, operation) only the newest content is kept: a status that was never sent is
// replaced
//   by the next one, so an outage of a day costs one message an object when the link is back.
//   Contents that add up (events) get a key of their own each.
// - Several are on their way at a time, in the order in which they were first put; each is sent
// again when no
//   answer came. An answer that refuses it for good (not found, forbidden, invalid) ends it: that
//   is told to the log and to `on_answer`.
// - Limits: beyond max_messages, put() fails with kResourceExhausted; nothing is dropped silently.
// Threads: the loop given.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/metastore.h"
#include "core/bus/bus.h"
#include "core/obs/metrics.h"

namespace edgemesh::agent {

class Outbox {
 public:
  struct Options {
    size_t max_messages = 120'000;
    size_t max_in_flight = 32;
    Duration answer_timeout = std::chrono::seconds(10);
    Duration retry_min = std::chrono::seconds(1);
    Duration retry_max = std::chrono::seconds(60);
  };
  struct Item {
    std::string resource, operation;
    std::string content;           // JSON text
    std::string source = "edged";  // KubeEdge sorts by it
    // KubeEdge answers no events: those are done when they were handed to the connection.
    bool answered = true;
  };

  Outbox(io::Loop& loop, Metastore& store, Options options, obs::Registry& registry);
  Outbox(io::Loop& loop, Metastore& store, obs::Registry& registry);
  ~Outbox();

  // Reads what an earlier run left. The bus must have the hub module.
  Result<> start(bus::Bus& bus);
  void stop();
  void on_connection(bool connected);

  Result<> put(Item item);
  // Takes it back, when it was not confirmed yet: the object is gone.
  void cancel(std::string_view resource, std::string_view operation);

  // What the cloud answered, for those who want to know: the content of the response, or of the
  // error.
  using OnAnswer = std::function<void(const std::string& resource, const std::string& operation,
                                      const Result<std::string>& content)>;
  void on_answer(OnAnswer callback) { on_answer_ = std::move(callback); }

  size_t size() const { return items_.size(); }
  size_t in_flight() const { return in_flight_; }

 private:
  struct Entry {
    std::string key;      // in the metastore
    uint64_t change = 0;  // counts puts: what was sent may be outdated when its answer comes
    bool in_flight = false;
    int tries = 0;
  };
  using Sequence = uint64_t;

  void on_stored(const std::vector<std::pair<std::string, uint64_t>>& batch);
  void pump();
  bool send(Sequence sequence, Entry& entry);
  void on_result(Sequence sequence, uint64_t change, Result<bus::Message> answer);
  void finish(Sequence sequence);
  void retry(Sequence sequence, Entry& entry);
  void arm();

  io::Loop& loop_;
  Metastore& store_;
  Options options_;
  bus::Bus* bus_ = nullptr;
  bool connected_ = false;
  std::map<Sequence, Entry> items_;  // in the order of sending
  std::unordered_map<std::string, Sequence> by_key_;
  std::unordered_map<std::string, std::string> fresh_;  // key -> value, until it is on disk
  std::set<Sequence> ready_;                            // not in flight, not waiting
  std::multimap<TimePoint, Sequence> waiting_;
  Sequence next_ = 1;
  bool turn_pending_ = false;
  size_t in_flight_ = 0;
  OnAnswer on_answer_;
  io::Timer timer_;
  obs::Gauge& size_;
  obs::Counter& sent_;
  obs::Counter& refused_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::agent
