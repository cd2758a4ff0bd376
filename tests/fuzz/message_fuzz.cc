// Channel messages: what decodes must encode to something that decodes to the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/channel/message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh::channel;
  const std::string_view text(reinterpret_cast<const char*>(data), size);  // NOLINT
  const auto message = decode(text, 64 << 10);
  if (!message) return 0;
  static_cast<void>(content_text(*message));
  const std::string once = encode(*message);
  const auto again = decode(once);
  if (!again || encode(*again) != once) std::abort();
  static_cast<void>(encode(reply_to(*message, content_text(*message))));
  return 0;
}
