#include "core/bus/message.h"

#include <sys/random.h>

#include <chrono>

#include "core/base/result.h"

namespace edgemesh::bus {

Message make_message(std::string_view source, std::string_view group, std::string_view operation,
                     std::string_view resource, std::string content) {
  Message message;
  message.id = new_id();
  message.timestamp_ms = now_ms();
  message.source = source;
  message.group = group;
  message.operation = operation;
  message.resource = resource;
  message.content = std::move(content);
  return message;
}

Message reply_to(const Message& message, std::string content) {
  Message reply =
      make_message(message.source, message.group, "response", message.resource, std::move(content));
  reply.parent_id = message.id;
  return reply;
}

std::string new_id() {
  uint8_t b[16];
  EM_CHECK(getrandom(b, sizeof b, 0) == sizeof b);
  b[6] = static_cast<uint8_t>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<uint8_t>((b[8] & 0x3f) | 0x80);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(36);
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kHex[b[i] >> 4];
    out += kHex[b[i] & 15];
  }
  return out;
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace edgemesh::bus
