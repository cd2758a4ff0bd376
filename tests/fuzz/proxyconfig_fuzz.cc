// The proxy's configuration file: any text is read or refused with a line.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);  // NOLINT
  const auto config = edgemesh::proxy::model::parse_config(text, "f.yaml");
  if (!config && config.error().message.empty()) std::abort();
  return 0;
}
