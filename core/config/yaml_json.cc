#include "core/config/yaml_json.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>

namespace edgemesh::config {

namespace {

constexpr int kMaxDepth = 64;

void append_string(std::string_view text, std::string* out) {
  *out += '"';
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *out += '\\';
      *out += c;
    } else if (byte < 0x20) {
      *out += fmt::format("\\u{:04x}", byte);
    } else {
      *out += c;
    }
  }
  *out += '"';
}

// A plain (not quoted) scalar by the core schema: null, bool, int, float, else a string.
void append_plain(const std::string& text, std::string* out) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    *out += "null";
    return;
  }
  if (text == "true" || text == "True" || text == "TRUE") {
    *out += "true";
    return;
  }
  if (text == "false" || text == "False" || text == "FALSE") {
    *out += "false";
    return;
  }
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (auto [at, error] = std::from_chars(begin, end, integer); error == std::errc() && at == end) {
    *out += std::to_string(integer);
    return;
  }
  bool numeric = text.find_first_not_of("0123456789+-.eE") == std::string::npos &&
                 text.find_first_of("0123456789") != std::string::npos;
  double real = 0;
  if (numeric) {
    if (auto [at, error] = std::from_chars(begin, end, real);
        error == std::errc() && at == end && std::isfinite(real)) {
      *out += fmt::format("{}", real);
      return;
    }
  }
  append_string(text, out);
}

// False: too deep or too large.
bool append_node(const YAML::Node& node, int depth, size_t max_bytes, std::string* out) {
  if (depth > kMaxDepth || out->size() > max_bytes) return false;
  switch (node.Type()) {
    case YAML::NodeType::Undefined:
    case YAML::NodeType::Null: *out += "null"; return true;
    case YAML::NodeType::Scalar:
      // yaml-cpp marks quoted scalars with the tag "!".
      if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") {
        append_string(node.Scalar(), out);
      } else {
        append_plain(node.Scalar(), out);
      }
      return true;
    case YAML::NodeType::Sequence: {
      *out += '[';
      bool first = true;
      for (const auto& item : node) {
        if (!first) *out += ',';
        first = false;
        if (!append_node(item, depth + 1, max_bytes, out)) return false;
      }
      *out += ']';
      return true;
    }
    case YAML::NodeType::Map: {
      *out += '{';
      bool first = true;
      for (const auto& entry : node) {
        if (!first) *out += ',';
        first = false;
        if (!entry.first.IsScalar()) return false;
        append_string(entry.first.Scalar(), out);
        *out += ':';
        if (!append_node(entry.second, depth + 1, max_bytes, out)) return false;
      }
      *out += '}';
      return true;
    }
  }
  return false;
}

}  // namespace

Result<std::string> yaml_to_json(std::string_view yaml, size_t max_bytes) {
  if (yaml.size() > max_bytes) {
    return fail(ErrorCode::kResourceExhausted, "YAML: more than {} bytes", max_bytes);
  }
  std::string out;
  // yaml-cpp reports by exceptions; none leaves this function.
  try {
    YAML::Node node = YAML::Load(std::string(yaml));
    if (!append_node(node, 0, max_bytes, &out)) {
      return fail(ErrorCode::kResourceExhausted,
                  "YAML: nested deeper than {}, larger than {} bytes, or a key that is no scalar",
                  kMaxDepth, max_bytes);
    }
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::kInvalidArgument, "YAML: line {}, column {}: {}", error.mark.line + 1,
                error.mark.column + 1, error.msg);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInvalidArgument, "YAML: {}", error.what());
  }
  return out;
}

}  // namespace edgemesh::config
