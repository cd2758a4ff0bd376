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
#include "core/bus/message.h"

namespace edgemesh::channel {

inline constexpr size_t kMaxMessageBytes = 4 << 20;

using bus::Message;
using bus::make_message;
using bus::new_id;
using bus::now_ms;
using bus::reply_to;

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

}  // namespace edgemesh::channel
