// Protobuf bodies of the Kubernetes API: whatever comes, the result is JSON that can be written, and what
// is written can be read again.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/protobuf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto decoded = edgemesh::kube::decode_protobuf(text);
  if (!decoded) return 0;
  // Throws for a string that is not UTF-8.
  std::string written = decoded->dump();
  if (edgemesh::kube::json_depth(written) > edgemesh::kube::kMaxJsonDepth) return 0;
  auto again = edgemesh::kube::parse_json(written);
  if (!again || *again != *decoded) std::abort();
  return 0;
}
