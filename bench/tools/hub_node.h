// One simulated node of hub_load: a TLS client with a certificate of its own and a WebSocket that
// says what edgemesh-agent says (sync, inventory, node info, confirmations, pings each 1.5 s,
// keepalive). It comes back as the agent does: 5 s for each step, 0.5 s doubling to 30 s between
// attempts, with jitter.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace edgemesh::bench {

using Clock = std::chrono::steady_clock;
double seconds_now();  // CLOCK_MONOTONIC, as Python's time.monotonic()

// What all nodes share, and what they report.
struct Fleet {
  int epoll = -1;
  SSL_CTX* tls = nullptr;
  std::string address;  // of the hub, IPv4
  uint16_t port = 10000;
  int sources = 8;  // 127.0.0.2, .3, ... as source addresses
  bool confirm = true;
  // Seconds as the nodes' timeouts see them: turns of this process that take long are none of a
  // node's waiting.
  double patience = 0;

  size_t connecting = 0, open = 0, synced = 0;
  uint64_t closed = 0, failed = 0;  // connections that ended; attempts that came to nothing
  uint64_t confirmed = 0;           // messages of the reliable kind that were answered
  std::string marker;               // messages with this text are timed
  std::vector<double> marked;       // when, in the order of arrival
  std::vector<double> round_trips;  // of pings, seconds
  std::vector<double> joins;        // from connect() to the end of the first sync, seconds
  uint64_t queries = 0, answers = 0, strange_answers = 0;
  std::string last_error;
  std::mt19937_64 random{1};
};

class SimNode {
 public:
  SimNode(Fleet& fleet, size_t index, std::string name, std::string certificate_der);
  ~SimNode();

  void connect();
  void drop();  // without a goodbye
  void on_event(uint32_t events);
  void tick(double now);  // each 50 ms or so
  void enable(bool on) { enabled_ = on; }
  void stop_reading(bool on);
  void silence(bool on);  // neither reads nor writes: a line that is cut
  void query(uint64_t count) {
    queries_left_ = count;
    send_queries();
  }
  void flood(bool on);

  bool synced() const { return synced_; }
  bool open() const { return phase_ == Phase::kOpen; }
  size_t distinct_objects() const { return objects_.size(); }
  size_t unanswered() const { return waiting_.size() + queries_left_; }

 private:
  enum class Phase : uint8_t { kDown, kConnect, kTls, kUpgrade, kOpen };

  void fail(const char* what);
  void retry_later();
  void handshake();
  void read_some();
  bool take_upgrade();
  void take_frames();
  void on_frame(int opcode, std::string_view payload);
  void on_text(std::string_view text);
  void opened();
  void send_frame(int opcode, std::string_view payload);
  void send_text(std::string_view text) { send_frame(1, text); }
  void send_queries();
  void flush();
  void watch();
  void inventory();
  std::string id();

  Fleet& fleet_;
  size_t index_;
  std::string name_;
  std::string der_;
  int fd_ = -1;
  SSL* ssl_ = nullptr;
  Phase phase_ = Phase::kDown;
  std::string in_, out_;
  size_t out_at_ = 0;
  bool enabled_ = false, synced_ = false, deaf_ = false, silent_ = false, flooding_ = false;
  bool marked_ = false;
  std::string marked_text_;
  uint32_t watched_ = 0;
  double begun_ = 0, step_at_ = 0, retry_at_ = 0, backoff_ = 0.5, ping_at_ = 0, keepalive_at_ = 0,
         opened_at_ = 0;
  bool first_join_ = true;
  uint64_t ids_ = 0, queries_left_ = 0;
  std::string epoch_, version_;
  std::unordered_set<std::string> objects_;  // "<resource>@<version>" that came and were confirmed
  std::unordered_set<std::string> waiting_;  // ids of queries
  // What an inventory names: resource -> uid and version.
  std::vector<std::pair<std::string, std::string>> held_;
};

}  // namespace edgemesh::bench
