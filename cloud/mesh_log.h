// MeshLog: what the mesh consists of (services, endpoint slices), ordered by when each object
// changed last. A node's position in the log is one number; what it misses is everything behind it.
//
//   position:   3        7     8           12    13 = head
//               svc/a    sl/x  (svc/b      svc/c sl/y
//                               deleted)
//
// Each object has one place, that of its latest change: a node that was away or is slow skips the
// versions between. A deletion stays as a tombstone; the oldest are dropped beyond a limit, and a
// node whose position is before a dropped one (`floor`) needs a full sync.
// The epoch names this log: positions of another log mean nothing here.
// Frames are encoded once and shared by all nodes. Not thread-safe.
//
// A log outlives its process: save() writes down which version of which object stands where, and a
// new process that finds the same version in the API puts it back into its place. What changed
// meanwhile gets a new place. Positions that were given out after the last save are a gap: a node
// that stands there may hold what the file does not know of, and needs a full sync.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "cloud/node_link.h"
#include "core/base/result.h"

namespace edgemesh::cloud {

class MeshLog {
 public:
  struct Entry {
    std::string key;      // "<ns>/service/<name>"
    std::string version;  // the object's resourceVersion
    Frame frame;
    bool deleted = false;
  };
  using Encode = std::function<Frame(uint64_t position)>;

  explicit MeshLog(std::string epoch, size_t max_tombstones = 20'000)
      : epoch_(std::move(epoch)), max_tombstones_(max_tombstones) {}

  // The state as text (no frames), and back. restore() is for a fresh log; on an error (the text is
  // not what save() writes) it stays fresh. `encode_deleted` makes the frames of the tombstones.
  using EncodeDeleted = std::function<Frame(const std::string& key, uint64_t position)>;
  std::string save() const;
  Result<> restore(std::string_view text, const EncodeDeleted& encode_deleted);
  // All objects of the API were put: restored ones that were not are gone.
  void finish_restore(const EncodeDeleted& encode_deleted);

  // Returns false and does not encode when the object is there with the same version.
  bool put(std::string_view key, std::string_view version, const Encode& encode);
  // False when there is no such object.
  bool remove(std::string_view key, const Encode& encode);

  const std::string& epoch() const { return epoch_; }
  uint64_t head() const { return head_; }
  uint64_t floor() const { return floor_; }
  // A node that stands there can be given what it misses.
  bool can_resume(uint64_t position) const {
    return position <= head_ && position >= floor_ &&
           (position <= gap_begin_ || position > gap_end_);
  }
  size_t objects() const { return entries_.size() - tombstones_; }
  // The first entry behind `position`; null at the head.
  const std::pair<const uint64_t, Entry>* after(uint64_t position) const;
  // "<ns>/service/<name>" is there and not deleted.
  bool has(std::string_view key) const;

 private:
  struct Restored {
    std::string version;
    uint64_t position = 0;
  };
  void append(std::string_view key, Entry entry);
  void place(uint64_t position, Entry entry);
  void drop_tombstones();

  std::string epoch_;
  size_t max_tombstones_;
  uint64_t head_ = 0;
  uint64_t floor_ = 0;
  uint64_t gap_begin_ = 0, gap_end_ = 0;  // (begin, end]
  size_t tombstones_ = 0;
  std::map<uint64_t, Entry> entries_;
  std::map<uint64_t, bool> tombstone_positions_;
  std::unordered_map<std::string, uint64_t> by_key_;
  std::unordered_map<std::string, Restored> restored_;  // not seen in the API yet
};

// One node's way through the log. Frames come in this order:
//   begin, changes..., end, then changes as they happen; begin again when it fell behind the floor.
class MeshCursor {
 public:
  // The node asks for what it misses. `request_id` becomes the parent of begin and end.
  void request(const MeshLog& log, std::string_view epoch, std::string_view position,
               std::string request_id);
  // Null: up to date, or nothing was asked for.
  Frame next(const MeshLog& log);
  bool live() const { return phase_ == Phase::kLive; }
  bool full() const { return full_; }
  uint64_t position() const { return position_; }

 private:
  enum class Phase { kIdle, kBegin, kChanges, kLive };
  void start_full(const MeshLog& log);
  Frame begin_frame(const MeshLog& log) const;
  Frame end_frame(const MeshLog& log) const;

  Phase phase_ = Phase::kIdle;
  bool full_ = false;
  uint64_t position_ = 0;
  // Full sync: tombstones up to here tell nothing to a node that starts from nothing.
  uint64_t base_ = 0;
  std::string request_id_;
};

}  // namespace edgemesh::cloud
