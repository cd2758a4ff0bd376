#include "kube/time.h"

#include <fmt/core.h>

#include <ctime>

namespace edgemesh::kube {

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
  return std::chrono::system_clock::from_time_t(timegm(&tm));
}

}  // namespace edgemesh::kube
