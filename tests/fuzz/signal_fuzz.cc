// ICE signals come from other nodes by way of the cloud: whatever they hold, the parser must end in a
// signal within its limits or in an error, and what it took must survive a round trip.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "p2p/signal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh::p2p;  // NOLINT
  auto signal = parse_signal({reinterpret_cast<const char*>(data), size});  // NOLINT
  if (!signal) return 0;
  if (signal->candidates.size() > kMaxSignalCandidates || signal->direct.size() > kMaxSignalAddresses)
    std::abort();
  auto again = parse_signal(encode_signal(*signal));
  if (!again || again->session != signal->session || again->candidates != signal->candidates ||
      again->direct != signal->direct)
    std::abort();
  return 0;
}
