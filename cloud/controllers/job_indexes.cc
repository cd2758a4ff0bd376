#include "cloud/controllers/job_indexes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string_view>

namespace edgemesh::cloud::controllers {

JobIndexes JobIndexes::parse(const std::string& text, int64_t limit) {
  JobIndexes out;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    int64_t first = -1;
    const char* end = part.data() + part.size();
    const auto read = std::from_chars(part.data(), end, first);
    int64_t last = first;
    const bool is_range = read.ec == std::errc() && read.ptr < end && *read.ptr == '-';
    if (is_range && std::from_chars(read.ptr + 1, end, last).ec != std::errc()) continue;
    if (read.ec != std::errc() || first < 0) continue;
    last = std::min(last, limit - 1);
    if (last < first || out.contains(first) || out.contains(last)) continue;
    out.ranges_[first] = last;
    out.size_ += last - first + 1;
  }
  return out;
}

bool JobIndexes::contains(int64_t index) const {
  auto it = ranges_.upper_bound(index);
  return it != ranges_.begin() && std::prev(it)->second >= index;
}

void JobIndexes::add(int64_t index) {
  if (index < 0 || contains(index)) return;
  ++size_;
  int64_t first = index, last = index;
  auto after = ranges_.upper_bound(index);
  if (after != ranges_.end() && after->first == index + 1) {
    last = after->second;
    after = ranges_.erase(after);
  }
  if (after != ranges_.begin()) {
    const auto before = std::prev(after);
    if (before->second == index - 1) {
      before->second = last;
      return;
    }
  }
  ranges_[first] = last;
}

int64_t JobIndexes::first_missing(int64_t from) const {
  const auto it = ranges_.upper_bound(from);
  if (it == ranges_.begin() || std::prev(it)->second < from) return from;
  // Ranges that touch may have come from a text that was written by hand.
  return first_missing(std::prev(it)->second + 1);
}

std::string JobIndexes::text() const {
  std::string out;
  for (const auto& [first, last] : ranges_) {
    if (!out.empty()) out += ',';
    out += std::to_string(first);
    if (last > first) out += fmt::format("{}{}", last > first + 1 ? '-' : ',', last);
  }
  return out;
}

}  // namespace edgemesh::cloud::controllers
