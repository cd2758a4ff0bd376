#include "proxy/telemetry/response_flags.h"

#include <cstring>

namespace edgemesh::proxy {

std::string_view flags_text(uint32_t flags) {
  static constexpr std::string_view kNames[flag::kCount] = {
      "UH", "UF", "UO", "NR", "URX", "NC", "UT", "UC",   "UR", "UPE",
      "DC", "DPE", "DI", "FI", "RL",  "UAEX", "SI", "UMSDR", "OM", "LR"};
  if (flags == 0) return "-";
  static thread_local char text[flag::kCount * 6];
  size_t size = 0;
  for (int i = 0; i < flag::kCount; ++i) {
    if ((flags & (1U << i)) == 0) continue;
    if (size > 0) text[size++] = ',';
    std::memcpy(text + size, kNames[i].data(), kNames[i].size());
    size += kNames[i].size();
  }
  return {text, size};
}

}  // namespace edgemesh::proxy
