// Configuration files: the YAML reader and the agent's configuration on top of it.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "agent/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh;
  const std::string_view text(reinterpret_cast<const char*>(data), size);  // NOLINT
  const auto config = agent::parse_config(text, "fuzz.yaml", false);
  if (!config) {
    // One line, whatever the file holds.
    for (const char c : config.error().message)
      if (c == '\n') std::abort();
    return 0;
  }
  // What was accepted can be shown, and what join writes of it can be read.
  static_cast<void>(agent::config_json(*config));
  if (!config->cloud.hub.empty() && !config->cloud.bootstrap.empty() &&
      !agent::parse_config(agent::render_join_config(*config), "join.yaml")) {
    std::abort();
  }
  return 0;
}
