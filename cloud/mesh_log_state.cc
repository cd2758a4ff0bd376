// MeshLog's way to a file and back:
//   edgemesh-mesh-log 1 <epoch> <head> <floor>
//   <position> <resourceVersion, or - for a tombstone> <key>
//   ...
#include <charconv>

#include "cloud/mesh_log.h"

namespace edgemesh::cloud {
namespace {

constexpr std::string_view kMagic = "edgemesh-mesh-log 1 ";
// More changes than this between two saves are not expected; they would only cost full syncs.
constexpr uint64_t kGap = 1'000'000;

// Takes the text up to `end` off the front of `rest`.
std::string_view take(std::string_view& rest, char end) {
  const size_t at = rest.find(end);
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
  return part;
}

bool number(std::string_view text, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string MeshLog::save() const {
  std::string out = fmt::format("{}{} {} {}\n", kMagic, epoch_, head_, floor_);
  for (const auto& [position, entry] : entries_) {
    out += fmt::format("{} {} {}\n", position, entry.deleted ? "-" : entry.version, entry.key);
  }
  // Not seen again yet, but not known to be gone either.
  for (const auto& [key, restored] : restored_) {
    out += fmt::format("{} {} {}\n", restored.position, restored.version, key);
  }
  return out;
}

Result<> MeshLog::restore(std::string_view text, const EncodeDeleted& encode_deleted) {
  const auto bad = [] { return fail(ErrorCode::kInvalidArgument, "not a mesh log"); };
  if (head_ != 0 || !text.starts_with(kMagic)) return bad();
  text.remove_prefix(kMagic.size());
  const std::string epoch(take(text, ' '));
  uint64_t head = 0;
  uint64_t floor = 0;
  if (!number(take(text, ' '), &head) || !number(take(text, '\n'), &floor)) return bad();
  if (epoch.empty() || floor > head || head > UINT64_MAX / 2) return bad();
  MeshLog fresh(epoch, max_tombstones_);
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    uint64_t position = 0;
    if (!number(take(line, ' '), &position) || position == 0 || position > head) return bad();
    const std::string version(take(line, ' '));
    const std::string key(line);
    if (version.empty() || key.empty() || fresh.entries_.contains(position)) return bad();
    if (version == "-") {
      fresh.place(
          position,
          {.key = key, .version = {}, .frame = encode_deleted(key, position), .deleted = true});
    } else {
      fresh.restored_[key] = {.version = version, .position = position};
    }
  }
  fresh.floor_ = floor;
  fresh.gap_begin_ = head;
  fresh.gap_end_ = head + kGap;
  fresh.head_ = head + kGap;
  *this = std::move(fresh);
  return {};
}

void MeshLog::finish_restore(const EncodeDeleted& encode_deleted) {
  const auto gone = std::move(restored_);
  restored_.clear();
  for (const auto& [key, restored] : gone) {
    append(key,
           {.key = key, .version = {}, .frame = encode_deleted(key, head_ + 1), .deleted = true});
  }
}

}  // namespace edgemesh::cloud
