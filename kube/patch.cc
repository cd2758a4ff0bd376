#include "kube/patch.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace edgemesh::kube {

using nlohmann::json;

namespace {

void merge(json& target, const json& patch) {
  if (!patch.is_object()) {
    target = patch;
    return;
  }
  if (!target.is_object()) target = json::object();
  for (const auto& [key, value] : patch.items()) {
    if (value.is_null()) {
      target.erase(key);
    } else {
      merge(target[key], value);
    }
  }
}

constexpr size_t kMaxOperations = 10'000;
constexpr size_t kMaxCopiedBytes = 8 << 20;

using Path = std::vector<std::string>;

// RFC 6901: "" is the document, "/a~1b/0" the member "a/b", then the element 0.
Result<Path> parse_pointer(std::string_view text) {
  Path path;
  if (text.empty()) return path;
  if (text.front() != '/') {
    return fail(ErrorCode::kInvalidArgument, "JSON patch: path '{}' must start with '/'", text);
  }
  std::string token;
  for (size_t i = 1; i <= text.size(); ++i) {
    if (i == text.size() || text[i] == '/') {
      path.push_back(std::move(token));
      token.clear();
    } else if (text[i] == '~') {
      char next = i + 1 < text.size() ? text[i + 1] : '\0';
      if (next != '0' && next != '1') {
        return fail(ErrorCode::kInvalidArgument, "JSON patch: '~' in path '{}' must be ~0 or ~1",
                    text);
      }
      token += next == '0' ? '~' : '/';
      ++i;
    } else {
      token += text[i];
    }
  }
  return path;
}

tl::unexpected<Error> missing(std::string_view path) {
  return fail(ErrorCode::kInvalidArgument, "JSON patch: there is nothing at path '{}'", path);
}

// An index below `limit`; no sign, no leading zero.
bool parse_index(std::string_view token, size_t limit, size_t* out) {
  if (token.empty() || (token.size() > 1 && token[0] == '0') || token[0] == '+') return false;
  auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), *out);
  return error == std::errc() && end == token.data() + token.size() && *out < limit;
}

json* step(json& at, const std::string& token) {
  if (at.is_object()) {
    auto it = at.find(token);
    return it == at.end() ? nullptr : &*it;
  }
  size_t index = 0;
  if (at.is_array() && parse_index(token, at.size(), &index)) return &at[index];
  return nullptr;
}

json* resolve(json& document, const Path& path, size_t depth) {
  json* at = &document;
  for (size_t i = 0; i < depth && at != nullptr; ++i) at = step(*at, path[i]);
  return at;
}

Result<> add(json& document, const Path& path, std::string_view shown, json value) {
  if (path.empty()) {
    document = std::move(value);
    return {};
  }
  json* parent = resolve(document, path, path.size() - 1);
  if (parent == nullptr) return missing(shown);
  const std::string& token = path.back();
  if (parent->is_object()) {
    (*parent)[token] = std::move(value);
    return {};
  }
  if (!parent->is_array()) return missing(shown);
  if (token == "-") {
    parent->push_back(std::move(value));
    return {};
  }
  size_t index = 0;
  if (!parse_index(token, parent->size() + 1, &index)) return missing(shown);
  parent->insert(parent->begin() + static_cast<json::difference_type>(index), std::move(value));
  return {};
}

Result<json> remove(json& document, const Path& path, std::string_view shown) {
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "JSON patch: cannot remove the whole");
  json* parent = resolve(document, path, path.size() - 1);
  json* target = parent != nullptr ? step(*parent, path.back()) : nullptr;
  if (target == nullptr) return missing(shown);
  json value = std::move(*target);
  if (parent->is_object()) {
    parent->erase(path.back());
  } else {
    parent->erase(static_cast<size_t>(target - &(*parent)[0]));
  }
  return value;
}

struct Operation {
  std::string op, path_text, from_text;
  Path path, from;
  const json* value = nullptr;
};

Result<Operation> parse_operation(const json& in) {
  Operation out;
  auto text = [&in](const char* name, std::string* into) {
    auto it = in.find(name);
    if (it == in.end() || !it->is_string()) return false;
    *into = it->get<std::string>();
    return true;
  };
  if (!in.is_object() || !text("op", &out.op) || !text("path", &out.path_text)) {
    return fail(ErrorCode::kInvalidArgument, "JSON patch: each operation needs 'op' and 'path'");
  }
  EM_TRY(out.path, parse_pointer(out.path_text));
  if (out.op == "move" || out.op == "copy") {
    if (!text("from", &out.from_text)) {
      return fail(ErrorCode::kInvalidArgument, "JSON patch: '{}' needs 'from'", out.op);
    }
    EM_TRY(out.from, parse_pointer(out.from_text));
  } else if (out.op == "add" || out.op == "replace" || out.op == "test") {
    auto it = in.find("value");
    if (it == in.end()) {
      return fail(ErrorCode::kInvalidArgument, "JSON patch: '{}' needs 'value'", out.op);
    }
    out.value = &*it;
  } else if (out.op != "remove") {
    return fail(ErrorCode::kInvalidArgument,
                "JSON patch: operation '{}' is not known (add, remove, replace, move, copy, test)",
                out.op);
  }
  return out;
}

Result<> move_value(json& document, const Operation& op) {
  // A value cannot be moved into itself.
  bool inside = op.path.size() > op.from.size() &&
                std::equal(op.from.begin(), op.from.end(), op.path.begin());
  if (inside) {
    return fail(ErrorCode::kInvalidArgument, "JSON patch: cannot move '{}' into itself",
                op.from_text);
  }
  EM_TRY(json value, remove(document, op.from, op.from_text));
  return add(document, op.path, op.path_text, std::move(value));
}

Result<> run(json& document, const Operation& op, size_t* copied) {
  if (op.op == "add") return add(document, op.path, op.path_text, *op.value);
  if (op.op == "move") return move_value(document, op);
  if (op.op == "remove") {
    EM_TRY_VOID(remove(document, op.path, op.path_text));
    return {};
  }
  if (op.op == "copy") {
    json* source = resolve(document, op.from, op.from.size());
    if (source == nullptr) return missing(op.from_text);
    json value = *source;
    *copied += value.dump(-1, ' ', false, json::error_handler_t::replace).size();
    if (*copied > kMaxCopiedBytes) {
      return fail(ErrorCode::kResourceExhausted, "JSON patch: copies more than {} bytes",
                  kMaxCopiedBytes);
    }
    return add(document, op.path, op.path_text, std::move(value));
  }
  json* target = resolve(document, op.path, op.path.size());
  if (target == nullptr) return missing(op.path_text);
  if (op.op == "replace") {
    *target = *op.value;
    return {};
  }
  if (*target == *op.value) return {};
  return fail(ErrorCode::kConflict, "JSON patch: test of '{}' failed", op.path_text);
}

}  // namespace

Result<> apply_merge_patch(json& target, const json& patch) {
  if (!patch.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "merge patch: want a JSON object");
  }
  merge(target, patch);
  return {};
}

Result<> apply_json_patch(json& target, const json& patch) {
  if (!patch.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "JSON patch: want a list of operations");
  }
  if (patch.size() > kMaxOperations) {
    return fail(ErrorCode::kResourceExhausted, "JSON patch: more than {} operations",
                kMaxOperations);
  }
  size_t copied = 0;
  for (const json& item : patch) {
    EM_TRY(auto operation, parse_operation(item));
    EM_TRY_VOID(run(target, operation, &copied));
  }
  return {};
}

}  // namespace edgemesh::kube
