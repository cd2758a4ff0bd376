// Metastore: what the node knows, on disk (SQLite, KubeEdge's table meta(key, type, value)), so
// that it lives on without the cloud, also after a restart.
//
// Writes are collected in a turn of the loop and committed together by the store thread. What is
// recorded as reached (position) never runs ahead of the objects: both are in one transaction, and
// when a write fails the position is dropped, so that the next start asks the cloud for everything.
// A file that is damaged is set aside as <file>.broken-<time>, a new one is begun: everything in it
// comes from the cloud again; of such files the newest is kept.
// Threads: the loop given; SQLite runs on the store's thread, apart from open() and for_each().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "core/store/writer.h"

namespace edgemesh::agent {

class Metastore {
 public:
  struct Options {
    size_t max_value_bytes = 1 << 20;
    size_t max_keys = 200'000;            // of all types
    size_t max_bytes = 256 << 20;         // of all keys and values
    size_t max_pending_bytes = 64 << 20;  // not yet committed
  };

  // `path`: a file in the state dir. Blocking. An error only when no file can be made there at all.
  static Result<std::unique_ptr<Metastore>> open(io::Loop& loop, const std::string& path,
                                                 obs::Registry& registry, const Options& options);
  static Result<std::unique_ptr<Metastore>> open(io::Loop& loop, const std::string& path,
                                                 obs::Registry& registry);
  ~Metastore();  // commits what is pending
  Metastore(const Metastore&) = delete;
  Metastore& operator=(const Metastore&) = delete;

  // Reads every row of a type as committed, in the order of the keys. Blocking; for the start.
  Result<> for_each(std::string_view type,
                    const std::function<void(const std::string& key, std::string_view value)>& fn);
  // One row as committed; empty when absent. Blocking; for the start.
  Result<std::string> get(std::string_view key);

  // False: refused (logged and counted), it is beyond the limits.
  bool put(std::string_view key, std::string_view type, std::string value);
  void remove(std::string_view key);
  // Runs when all writes so far are on disk, or failed.
  void flush(UniqueFunction<void(Result<>)> done);

  // Keys of a type that are stored (with the writes that are pending).
  std::vector<std::string> keys(std::string_view type) const;
  bool has(std::string_view key) const { return types_.contains(std::string(key)); }
  size_t size() const { return types_.size(); }
  size_t bytes() const { return bytes_; }  // of keys and values
  size_t count(std::string_view type) const;

  // `before_write` runs when a turn's changes are about to be submitted: what it puts goes into the
  // same transaction. `on_lost` runs after a write that failed: some of what was put is not on
  // disk.
  void set_hooks(UniqueFunction<void()> before_write, UniqueFunction<void()> on_lost) {
    before_write_ = std::move(before_write);
    on_lost_ = std::move(on_lost);
  }

  // Hears of every change once it is on disk, in the order of the changes; value null: removed. The
  // value lives during the call.
  using Observer =
      std::function<void(const std::string& key, std::string_view type, const std::string* value)>;
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  // How many writes failed so far. Unchanged from before put() to flush()'s callback: what was put
  // is on disk.
  uint64_t failed_writes() const { return generation_ - 1; }

  // Set when the file was set aside at open(): where it is now.
  const std::string& set_aside() const { return set_aside_; }

  // Rows of this type are dropped in the first write after one that failed.
  static constexpr std::string_view kPositionType = "position";

 private:
  struct Change {
    std::string key;
    std::string type;
    std::string value;
    bool removal = false;
  };
  struct Row {
    uint8_t type = 0;    // index in type_names_
    uint32_t bytes = 0;  // of the value
  };
  Metastore(io::Loop& loop, const Options& options, obs::Registry& registry);
  Result<> open_file(const std::string& path);
  Result<> load_keys();
  void add(Change change);
  void submit();
  void on_written(size_t bytes, const std::vector<Change>& changes, Result<> result);
  uint8_t type_id(std::string_view type);
  void note_row(const std::string& key, std::string_view type, size_t value_bytes);
  void refuse(std::string_view key, std::string_view why);

  io::Loop& loop_;
  Options options_;
  std::unique_ptr<store::Writer> writer_;
  std::unique_ptr<store::Database> reader_;     // closed first: the last to close empties the WAL
  std::unordered_map<std::string, Row> types_;  // by key
  size_t bytes_ = 0;
  std::vector<std::string> type_names_;
  std::vector<size_t> type_counts_;
  std::vector<Change> pending_;
  size_t pending_bytes_ = 0;  // with what was submitted
  bool submit_waits_ = false;
  bool drop_position_ = false;
  uint64_t generation_ = 1;  // counts the failures that this thread knows of
  // The generation in which a write failed; used on the writer's thread only.
  std::shared_ptr<uint64_t> failed_generation_ = std::make_shared<uint64_t>(0);
  UniqueFunction<void()> before_write_, on_lost_;
  Observer observer_;
  TimePoint last_logged_{};
  std::string set_aside_;
  obs::Counter& writes_;
  obs::Counter& write_failures_;
  obs::Gauge& rows_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::agent
