// The message between cloud and edge: KubeEdge's beehive message, one JSON object a WebSocket text
// frame (KubeEdge v1.2 to v1.23; staging/src/github.com/kubeedge/beehive/pkg/core/model/message.go).
//
//   {"header":{"msg_id","parent_msg_id"?,"timestamp":ms,"resourceversion"?,"sync"?,"type"?},
//    "route":{"source"?,"destination"?,"group"?,"operation"?,"resource"?},"content":any}
//
// Keys marked ? are left out when empty. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::channel {

inline constexpr size_t kMaxMessageBytes = 4 << 20;

struct Message {
  std::string id;
  std::string parent_id;
  int64_t timestamp_ms = 0;
  std::string resource_version;
  bool sync = false;
  std::string type;
  std::string source, destination, group, operation, resource;
  std::string content = "null";  // JSON text
};

// One line with a newline at its end, as Go's encoder writes it. A content that is not JSON is sent as
// a JSON string.
std::string encode(const Message& message);

// Strict about types, lenient about keys it does not know. Fails on text over max_bytes, nesting over
// 64 levels, or a part of the wrong type.
Result<Message> decode(std::string_view text, size_t max_bytes = kMaxMessageBytes);

// Content for a reader: a JSON string gives its text (KubeEdge sends objects both as objects and as
// strings that hold JSON), anything else its JSON text.
std::string content_text(const Message& message);
// Text as the JSON string that `content` wants.
std::string json_string(std::string_view text);

// An answer to `message`: new id, parent_id, source, group and resource copied, operation "response".
Message reply_to(const Message& message, std::string content);

std::string new_id();  // UUID v4
int64_t now_ms();      // Unix milliseconds

}  // namespace edgemesh::channel
