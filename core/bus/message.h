// The message of the bus and, encoded by core/channel, of the cloud-edge channel: KubeEdge's beehive
// message. Values and pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace edgemesh::bus {

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

// With a new id and the time of now.
Message make_message(std::string_view source, std::string_view group, std::string_view operation,
                     std::string_view resource, std::string content = "null");

// An answer to `message`: new id, parent_id, source, group and resource copied, operation "response".
Message reply_to(const Message& message, std::string content);

std::string new_id();  // UUID v4
int64_t now_ms();      // Unix milliseconds

}  // namespace edgemesh::bus
