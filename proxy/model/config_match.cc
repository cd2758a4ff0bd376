// YAML of what requests are compared with.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "proxy/model/config_read.h"
#include "proxy/model/regex.h"

namespace edgemesh::proxy::model {

void lower(std::string& text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
}

void check_regex(Reader& reader, std::string_view key, const std::string& pattern) {
  if (auto regex = Regex::make(pattern); !regex) reader.reject(key, regex.error().message);
}

void read_percent(Reader& reader, std::string_view key, PerMillion* out) {
  std::string text;
  reader.read(key, &text);
  if (text.empty()) return;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !std::isfinite(value) || value < 0 || value > 100)
    reader.reject(key, fmt::format("'{}' is not allowed (want a percentage, 0 to 100)", text));
  else
    *out = static_cast<PerMillion>(std::llround(value * 10'000));
}

std::vector<std::pair<std::string, std::string>> read_pairs(Reader& reader, std::string_view key) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto keys = reader.keys(key);
  Reader section = reader.section(key);
  for (const auto& name : keys) {
    auto& pair = out.emplace_back(name, "");
    section.read(name, &pair.second);
  }
  return out;
}

Result<std::string> read_file(const std::string& file) {
  constexpr size_t kMaxBytes = 1 << 20;
  // A device may have no end: never more than the limit is read.
  std::ifstream in(file, std::ios::binary);
  std::string all(kMaxBytes + 1, '\0');
  in.read(all.data(), static_cast<std::streamsize>(all.size()));
  all.resize(static_cast<size_t>(in.gcount()));
  if (in.bad() || !in.eof() || all.size() > kMaxBytes)
    return fail(ErrorCode::kInvalidArgument, "cannot read {} (or more than 1 MiB)", file);
  return all;
}

void read_text_or_file(Reader& reader, std::string_view key, std::string_view file_key,
                       std::string* text, std::string* file) {
  reader.read(key, text);
  reader.read(file_key, file);
  if (file->empty()) return;
  if (!text->empty()) return reader.reject(file_key, fmt::format("and {} are both given", key));
  auto all = read_file(*file);
  if (!all) return reader.reject(file_key, all.error().message);
  *text = std::move(*all);
}

TextMatch read_text_match(Reader reader) {
  using Kind = TextMatch::Kind;
  constexpr std::pair<std::string_view, Kind> kKinds[] = {{"exact", Kind::kExact},
                                                          {"prefix", Kind::kPrefix},
                                                          {"suffix", Kind::kSuffix},
                                                          {"contains", Kind::kContains},
                                                          {"regex", Kind::kRegex}};
  TextMatch out;
  int given = 0;
  for (const auto& [key, kind] : kKinds) {
    const bool here = reader.has(key);
    std::string text;
    reader.read(key, &text);
    if (!here) continue;
    if (++given > 1) reader.reject(key, "one of exact, prefix, suffix, contains, regex");
    out.kind = kind;
    out.text = std::move(text);
    if (kind == Kind::kRegex) check_regex(reader, key, out.text);
  }
  if (given == 0) reader.require("exact");
  reader.read("ignoreCase", &out.ignore_case);
  return out;
}

std::vector<TextMatch> read_text_matches(Reader& reader, std::string_view key) {
  std::vector<TextMatch> out;
  for (Reader item : reader.sections(key)) out.push_back(read_text_match(item));
  return out;
}

FieldMatch read_field_match(Reader reader, bool query) {
  FieldMatch out;
  reader.require("name");
  reader.read("name", &out.name);
  if (!query) lower(out.name);
  reader.read("invert", &out.invert);
  reader.read("absentAsEmpty", &out.absent_as_empty);
  bool present = true;
  const bool has_present = reader.has("present");
  reader.read("present", &present);
  if (has_present && !present) out.invert = !out.invert;
  if (reader.has("range")) {
    out.kind = FieldMatch::Kind::kRange;
    Reader range = reader.section("range");
    range.require("first");
    range.require("end");
    range.read("first", &out.first);
    range.read("end", &out.last);
    if (out.first >= out.last) range.reject("end", "must be greater than first");
  } else if (reader.has("exact") || reader.has("prefix") || reader.has("suffix") ||
             reader.has("contains") || reader.has("regex")) {
    out.kind = FieldMatch::Kind::kText;
    if (has_present) reader.reject("present", "and a text to match are both given");
    out.text = read_text_match(reader);
  }
  return out;
}

std::vector<FieldMatch> read_field_matches(Reader& reader, std::string_view key, bool query) {
  std::vector<FieldMatch> out;
  for (Reader item : reader.sections(key)) out.push_back(read_field_match(item, query));
  return out;
}

namespace {

void read_path_match(Reader& reader, PathMatch& out) {
  using Kind = PathMatch::Kind;
  constexpr std::pair<std::string_view, Kind> kKinds[] = {{"prefix", Kind::kPrefix},
                                                          {"path", Kind::kExact},
                                                          {"segmentPrefix", Kind::kSegmentPrefix},
                                                          {"regex", Kind::kRegex}};
  int given = 0;
  for (const auto& [key, kind] : kKinds) {
    const bool here = reader.has(key);
    std::string text;
    reader.read(key, &text);
    if (!here) continue;
    if (++given > 1) reader.reject(key, "one of prefix, path, segmentPrefix, regex");
    out.kind = kind;
    out.path = text;
    if (kind == Kind::kRegex)
      check_regex(reader, key, text);
    else if (!text.starts_with('/'))
      reader.reject(key, fmt::format("'{}' is not allowed (want a path that begins with /)", text));
    if (kind == Kind::kSegmentPrefix && text.ends_with('/'))
      reader.reject(key, fmt::format("'{}' is not allowed (want no / at the end)", text));
  }
  bool connect = false;
  reader.read("connect", &connect);
  if (connect) out.kind = Kind::kConnect;
  reader.read("ignoreCase", &out.ignore_case);
}

}  // namespace

void read_route_match(Reader reader, RouteMatch& out) {
  read_path_match(reader, out.path);
  reader.read("methods", &out.methods);
  out.headers = read_field_matches(reader, "headers");
  out.query = read_field_matches(reader, "query", true);
  for (auto& [key, value] : read_pairs(reader, "sourceLabels"))
    out.source_labels.push_back({key, value});
  std::sort(out.source_labels.begin(), out.source_labels.end());
  reader.read("sourceIps", &out.source_ips);
  reader.read("grpc", &out.grpc);
  read_percent(reader, "percent", &out.per_million);
}

}  // namespace edgemesh::proxy::model
