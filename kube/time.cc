#include "kube/time.h"

#include <fmt/core.h>

#include <ctime>
#include <string_view>

namespace edgemesh::kube {

namespace {

// "Z", nothing, or "+hh:mm": how far east of UTC.
std::optional<int> offset_minutes(std::string_view zone) {
  if (zone.empty() || zone == "Z" || zone == "z") return 0;
  if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':') return std::nullopt;
  for (const size_t i : {1, 2, 4, 5}) {
    if (zone[i] < '0' || zone[i] > '9') return std::nullopt;
  }
  const int minutes =
      ((zone[1] - '0') * 10 + zone[2] - '0') * 60 + (zone[4] - '0') * 10 + zone[5] - '0';
  return zone[0] == '-' ? -minutes : minutes;
}

}  // namespace

std::string rfc3339(std::chrono::system_clock::time_point time, bool micros) {
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = us / 1'000'000;
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  char text[32];
  std::string out(text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm));
  if (micros) out += fmt::format(".{:06}", us % 1'000'000);
  return out + "Z";
}

std::optional<std::chrono::system_clock::time_point> parse_rfc3339(const std::string& text) {
  constexpr size_t kToTheSecond = 19;
  std::tm tm{};
  if (text.size() < kToTheSecond || strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &tm) == nullptr)
    return std::nullopt;
  size_t at = kToTheSecond;
  if (at < text.size() && text[at] == '.') ++at;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  const auto east = offset_minutes(std::string_view(text).substr(at));
  if (!east) return std::nullopt;
  return std::chrono::system_clock::from_time_t(timegm(&tm)) - std::chrono::minutes(*east);
}

}  // namespace edgemesh::kube
