#include "cloud/api/json_path.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

using Found = std::vector<const json*>;

Found members(const Found& in, std::string_view name) {
  Found out;
  for (const json* value : in) {
    if (const json* inner = kube::find(*value, name)) out.push_back(inner);
  }
  return out;
}

Found elements(const Found& in) {
  Found out;
  for (const json* value : in) {
    if (!value->is_structured()) continue;
    for (const json& inner : *value) out.push_back(&inner);
  }
  return out;
}

std::string_view unquoted(std::string_view text) {
  bool quoted = text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
                text.back() == text.front();
  return quoted ? text.substr(1, text.size() - 2) : text;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// "?(@.type=="Ready")"
Found filtered(const Found& in, std::string_view filter) {
  if (!filter.starts_with("?(@") || !filter.ends_with(")")) return {};
  filter = filter.substr(3, filter.size() - 4);
  size_t equals = filter.find("==");
  if (equals == std::string_view::npos) return {};
  std::string_view path = trimmed(filter.substr(0, equals));
  std::string_view wanted = unquoted(trimmed(filter.substr(equals + 2)));
  Found out;
  for (const json* item : elements(in)) {
    for (const json* value : json_path(*item, path)) {
      std::string text = value->is_string() ? value->get<std::string>() : kube::to_text(*value);
      if (text == wanted) {
        out.push_back(item);
        break;
      }
    }
  }
  return out;
}

Found at_index(const Found& in, std::string_view text) {
  size_t index = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  Found out;
  for (const json* value : in) {
    if (value->is_array() && index < value->size()) out.push_back(&(*value)[index]);
  }
  return out;
}

Found in_brackets(const Found& in, std::string_view text) {
  text = trimmed(text);
  if (text == "*") return elements(in);
  if (text.starts_with("?")) return filtered(in, text);
  if (!text.empty() && (text.front() == '"' || text.front() == '\''))
    return members(in, unquoted(text));
  return at_index(in, text);
}

// Where the bracket that opens at 0 closes: quotes and inner brackets are passed over.
size_t closing(std::string_view text) {
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '[') {
      ++depth;
    } else if (c == ']' && --depth == 0) {
      return i;
    }
  }
  return std::string_view::npos;
}

}  // namespace

Found json_path(const json& object, std::string_view path) {
  Found at = {&object};
  if (path.starts_with("{") && path.ends_with("}")) path = path.substr(1, path.size() - 2);
  if (path.starts_with("$")) path.remove_prefix(1);
  while (!path.empty() && !at.empty()) {
    if (path.front() == '[') {
      size_t end = closing(path);
      if (end == std::string_view::npos) return {};
      at = in_brackets(at, path.substr(1, end - 1));
      path.remove_prefix(end + 1);
      continue;
    }
    if (path.front() == '.') path.remove_prefix(1);
    size_t end = 0;
    std::string name;  // "\." is a dot of the name
    while (end < path.size() && path[end] != '.' && path[end] != '[') {
      if (path[end] == '\\' && end + 1 < path.size()) ++end;
      name += path[end++];
    }
    path.remove_prefix(end);
    if (name == "*") {
      at = elements(at);
    } else if (!name.empty()) {
      at = members(at, name);
    }
  }
  return at;
}

}  // namespace edgemesh::cloud
