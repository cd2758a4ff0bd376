#include "agent/edged/spec/quantity.h"

#include <array>
#include <charconv>
#include <limits>
#include <string>

#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using Wide = __int128;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
// Beyond this no quantity has a meaning, and products stay inside of Wide.
constexpr Wide kLimit = Wide(kMost) * 1000;

struct Suffix {
  std::string_view text;
  int64_t by;  // in units; 0: a fraction, see `of`
  int64_t of;
};
constexpr std::array<Suffix, 16> kSuffixes{{{"", 1, 1},
                                            {"n", 1, 1'000'000'000},
                                            {"u", 1, 1'000'000},
                                            {"m", 1, 1000},
                                            {"k", 1000, 1},
                                            {"M", 1'000'000, 1},
                                            {"G", 1'000'000'000, 1},
                                            {"T", 1'000'000'000'000, 1},
                                            {"P", 1'000'000'000'000'000, 1},
                                            {"E", 1'000'000'000'000'000'000, 1},
                                            {"Ki", int64_t(1) << 10, 1},
                                            {"Mi", int64_t(1) << 20, 1},
                                            {"Gi", int64_t(1) << 30, 1},
                                            {"Ti", int64_t(1) << 40, 1},
                                            {"Pi", int64_t(1) << 50, 1},
                                            {"Ei", int64_t(1) << 60, 1}}};

bool digit(char c) {
  return c >= '0' && c <= '9';
}

// `number` has digits and at most one point; the result is `scale` times it, rounded up.
std::optional<Wide> scaled(std::string_view number, Wide scale, Wide divide) {
  Wide whole = 0, part = 0, part_of = 1;
  bool point = false, any = false;
  for (const char c : number) {
    if (c == '.') {
      if (point) return std::nullopt;
      point = true;
      continue;
    }
    if (!digit(c)) return std::nullopt;
    any = true;
    if (!point) {
      whole = std::min<Wide>(whole * 10 + (c - '0'), kLimit);
    } else if (part_of < 1'000'000'000) {
      part = part * 10 + (c - '0');
      part_of *= 10;
    }
  }
  if (!any) return std::nullopt;
  if (whole > kLimit / scale) return kLimit;
  const Wide numerator = whole * scale * part_of + part * scale;
  const Wide denominator = divide * part_of;
  return (numerator + denominator - 1) / denominator;
}

std::optional<int64_t> parse(std::string_view text, Wide scale) {
  const bool minus = !text.empty() && text.front() == '-';
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  size_t end = 0;
  while (end < text.size() && (digit(text[end]) || text[end] == '.')) ++end;
  const std::string_view number = text.substr(0, end);
  const std::string_view suffix = text.substr(end);
  Wide divide = 1;
  bool known = false;
  for (const Suffix& s : kSuffixes) {
    if (s.text != suffix) continue;
    scale *= s.by;
    divide = s.of;
    known = true;
  }
  if (!known && suffix.size() > 1 && (suffix[0] == 'e' || suffix[0] == 'E')) {
    int exponent = 0;
    const char* from = suffix.data() + (suffix[1] == '+' ? 2 : 1);
    const char* last = suffix.data() + suffix.size();
    const auto [at, error] = std::from_chars(from, last, exponent);
    if (error != std::errc() || at != last || exponent < -12 || exponent > 18) return std::nullopt;
    for (; exponent > 0; --exponent) scale *= 10;
    for (; exponent < 0; ++exponent) divide *= 10;
    known = true;
  }
  if (!known) return std::nullopt;
  const auto value = scaled(number, scale, divide);
  if (!value) return std::nullopt;
  const int64_t out = *value > kMost ? kMost : static_cast<int64_t>(*value);
  return minus ? -out : out;
}

std::optional<int64_t> at(const Json& container, const char* list, const char* resource,
                          std::optional<int64_t> (*read)(std::string_view)) {
  const Json* value = kube::find(container, "resources", list, resource);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return read(value->get_ref<const std::string&>());
  return value->is_number() ? read(value->dump()) : std::nullopt;
}

int64_t request_or_limit(const Json& container, const char* list, const char* resource,
                         std::optional<int64_t> (*read)(std::string_view)) {
  auto value = at(container, list, resource, read);
  if (!value && std::string_view(list) == "requests")
    value = at(container, "limits", resource, read);
  return std::max<int64_t>(value.value_or(0), 0);
}

}  // namespace

std::optional<int64_t> parse_milli(std::string_view text) {
  return parse(text, 1000);
}

std::optional<int64_t> parse_units(std::string_view text) {
  return parse(text, 1);
}

int64_t cpu_milli(const Json& container, const char* list) {
  return request_or_limit(container, list, "cpu", parse_milli);
}

int64_t bytes_of(const Json& container, const char* list, const char* resource) {
  return request_or_limit(container, list, resource, parse_units);
}

}  // namespace edgemesh::edged
