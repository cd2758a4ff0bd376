#include "cloud/mesh_log.h"

#include <charconv>
#include <optional>

namespace edgemesh::cloud {
namespace {

std::optional<uint64_t> parse_position(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Frame sync_frame(const std::string& request_id, std::string_view resource, std::string content) {
  channel::Message message;
  message.id = channel::new_id();
  message.parent_id = request_id;
  message.timestamp_ms = channel::now_ms();
  message.source = "meshcontroller";
  message.group = "mesh";
  message.operation = "response";
  message.resource = resource;
  message.content = std::move(content);
  return std::make_shared<const std::string>(channel::encode(message));
}

}  // namespace

bool MeshLog::put(std::string_view key, std::string_view version, const Encode& encode) {
  if (const auto it = by_key_.find(std::string(key)); it != by_key_.end()) {
    const Entry& entry = entries_.at(it->second);
    if (!entry.deleted && entry.version == version) return false;
  }
  if (const auto it = restored_.find(std::string(key)); it != restored_.end()) {
    const Restored restored = std::move(it->second);
    restored_.erase(it);
    if (restored.version == version) {
      place(restored.position, {.key = std::string(key),
                                .version = restored.version,
                                .frame = encode(restored.position),
                                .deleted = false});
      return true;
    }
  }
  append(key, {.key = std::string(key),
               .version = std::string(version),
               .frame = encode(head_ + 1),
               .deleted = false});
  return true;
}

bool MeshLog::remove(std::string_view key, const Encode& encode) {
  if (!has(key)) return false;
  append(key,
         {.key = std::string(key), .version = {}, .frame = encode(head_ + 1), .deleted = true});
  return true;
}

bool MeshLog::has(std::string_view key) const {
  const auto it = by_key_.find(std::string(key));
  return it != by_key_.end() && !entries_.at(it->second).deleted;
}

void MeshLog::append(std::string_view key, Entry entry) {
  const uint64_t position = ++head_;
  const auto [it, fresh] = by_key_.try_emplace(std::string(key), position);
  if (!fresh) {
    if (entries_.at(it->second).deleted) {
      --tombstones_;
      tombstone_positions_.erase(it->second);
    }
    entries_.erase(it->second);
    it->second = position;
  }
  if (entry.deleted) {
    ++tombstones_;
    tombstone_positions_.emplace(position, true);
  }
  entries_.emplace_hint(entries_.end(), position, std::move(entry));
  drop_tombstones();
}

void MeshLog::place(uint64_t position, Entry entry) {
  by_key_.emplace(entry.key, position);
  if (entry.deleted) {
    ++tombstones_;
    tombstone_positions_.emplace(position, true);
  }
  entries_.emplace(position, std::move(entry));
}

void MeshLog::drop_tombstones() {
  while (tombstones_ > max_tombstones_) {
    const uint64_t oldest = tombstone_positions_.begin()->first;
    by_key_.erase(entries_.at(oldest).key);
    entries_.erase(oldest);
    tombstone_positions_.erase(oldest);
    --tombstones_;
    floor_ = oldest;
  }
}

const std::pair<const uint64_t, MeshLog::Entry>* MeshLog::after(uint64_t position) const {
  const auto it = entries_.upper_bound(position);
  return it == entries_.end() ? nullptr : &*it;
}

void MeshCursor::request(const MeshLog& log, std::string_view epoch, std::string_view position,
                         std::string request_id) {
  request_id_ = std::move(request_id);
  const auto from = parse_position(position);
  if (epoch != log.epoch() || !from || !log.can_resume(*from)) {
    start_full(log);
    return;
  }
  phase_ = Phase::kBegin;
  full_ = false;
  position_ = *from;
  base_ = 0;
}

void MeshCursor::start_full(const MeshLog& log) {
  phase_ = Phase::kBegin;
  full_ = true;
  position_ = 0;
  base_ = log.head();
}

Frame MeshCursor::next(const MeshLog& log) {
  if (phase_ == Phase::kIdle) return nullptr;
  // A tombstone that this node has not seen was dropped: what it holds may be gone.
  if (log.floor() > std::max(position_, base_)) start_full(log);
  if (phase_ == Phase::kBegin) {
    phase_ = Phase::kChanges;
    return begin_frame(log);
  }
  while (const auto* item = log.after(position_)) {
    position_ = item->first;
    if (full_ && item->second.deleted && position_ <= base_) continue;
    return item->second.frame;
  }
  position_ = log.head();
  if (phase_ == Phase::kLive) return nullptr;
  phase_ = Phase::kLive;
  return end_frame(log);
}

Frame MeshCursor::begin_frame(const MeshLog& log) const {
  return sync_frame(request_id_, "sync/begin",
                    fmt::format(R"({{"full":{},"epoch":"{}"}})", full_, log.epoch()));
}

Frame MeshCursor::end_frame(const MeshLog& log) const {
  return sync_frame(
      request_id_, "sync/end",
      fmt::format(R"({{"resourceVersion":"{}","epoch":"{}"}})", position_, log.epoch()));
}

}  // namespace edgemesh::cloud
