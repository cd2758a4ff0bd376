#include "core/channel/message.h"

#include <nlohmann/json.hpp>

namespace edgemesh::channel {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;
// Headers and route are names: nothing honest comes near this.
constexpr size_t kMaxName = 4096;

// The parser recurses by heap, but what reads the value may not: deep nesting is cut off here.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<> take(const json& part, const char* key, std::string& into) {
  auto it = part.find(key);
  if (it == part.end() || it->is_null()) return {};
  if (!it->is_string()) return fail(ErrorCode::kProtocol, "message: '{}' is not a string", key);
  if (it->get_ref<const std::string&>().size() > kMaxName)
    return fail(ErrorCode::kProtocol, "message: '{}' is longer than {} bytes", key, kMaxName);
  into = it->get<std::string>();
  return {};
}

Result<> take_header(const json& header, Message& message) {
  EM_TRY_VOID(take(header, "msg_id", message.id));
  EM_TRY_VOID(take(header, "parent_msg_id", message.parent_id));
  EM_TRY_VOID(take(header, "resourceversion", message.resource_version));
  EM_TRY_VOID(take(header, "type", message.type));
  if (auto it = header.find("timestamp"); it != header.end()) {
    if (!it->is_number_integer())
      return fail(ErrorCode::kProtocol, "message: 'timestamp' is not an integer");
    message.timestamp_ms = it->get<int64_t>();
  }
  if (auto it = header.find("sync"); it != header.end()) {
    if (!it->is_boolean()) return fail(ErrorCode::kProtocol, "message: 'sync' is not a boolean");
    message.sync = it->get<bool>();
  }
  return {};
}

Result<> take_route(const json& route, Message& message) {
  EM_TRY_VOID(take(route, "source", message.source));
  EM_TRY_VOID(take(route, "destination", message.destination));
  EM_TRY_VOID(take(route, "group", message.group));
  EM_TRY_VOID(take(route, "operation", message.operation));
  EM_TRY_VOID(take(route, "resource", message.resource));
  return {};
}

void put(std::string& out, const char* key, const std::string& value) {
  if (value.empty()) return;
  if (out.back() != '{') out += ',';
  out += '"';
  out += key;
  out += "\":";
  out += json_string(value);
}

}  // namespace

std::string json_string(std::string_view text) {
  return dump(json(text));
}

std::string encode(const Message& message) {
  std::string out = "{\"header\":{\"msg_id\":" + json_string(message.id);
  put(out, "parent_msg_id", message.parent_id);
  out += ",\"timestamp\":" + std::to_string(message.timestamp_ms);
  put(out, "resourceversion", message.resource_version);
  if (message.sync) out += ",\"sync\":true";
  put(out, "type", message.type);
  out += "},\"route\":{";
  put(out, "source", message.source);
  put(out, "destination", message.destination);
  put(out, "group", message.group);
  put(out, "operation", message.operation);
  put(out, "resource", message.resource);
  out += "},\"content\":";
  if (message.content.empty())
    out += "null";
  else if (json::accept(message.content))
    out += message.content;
  else
    out += json_string(message.content);
  out += "}\n";
  return out;
}

Result<Message> decode(std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes)
    return fail(ErrorCode::kResourceExhausted, "message of {} bytes, at most {} are taken",
                text.size(), max_bytes);
  if (too_deep(text))
    return fail(ErrorCode::kProtocol, "message: nested more than {} levels", kMaxDepth);
  json value = json::parse(text, nullptr, false);
  if (!value.is_object()) return fail(ErrorCode::kProtocol, "message: not a JSON object");
  auto header = value.find("header");
  auto route = value.find("route");
  if (header == value.end() || !header->is_object())
    return fail(ErrorCode::kProtocol, "message: no 'header' object");
  if (route == value.end() || !route->is_object())
    return fail(ErrorCode::kProtocol, "message: no 'route' object");
  Message message;
  EM_TRY_VOID(take_header(*header, message));
  EM_TRY_VOID(take_route(*route, message));
  if (auto it = value.find("content"); it != value.end()) message.content = dump(*it);
  return message;
}

std::string content_text(const Message& message) {
  if (message.content.empty() || message.content.front() != '"') return message.content;
  json value = json::parse(message.content, nullptr, false);
  return value.is_string() ? value.get<std::string>() : message.content;
}

}  // namespace edgemesh::channel
