// Capsules of a peer, cut in two ways: the same datagrams come out, or the same error, and nothing
// beyond a datagram's size is kept. Paths of CONNECT-UDP as well.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/io/stream.h"
#include "p2p/connect_udp.h"
#include "proxy/udp/capsule.h"

namespace {

using namespace edgemesh;

struct Outcome {
  std::vector<std::string> payloads;
  bool ok = true;
  bool may_end = true;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome read(std::span<const uint8_t> data, size_t step) {
  Outcome out;
  proxy::CapsuleReader reader;
  while (!data.empty() && out.ok) {
    const size_t n = std::min(step, data.size());
    // A copy of its own: what is read outside of it is found.
    const std::vector<uint8_t> piece(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(n));
    out.ok = reader
                 .feed(piece,
                       [&](std::span<const uint8_t> payload) {
                         if (payload.size() > proxy::kMaxUdpPayload) std::abort();
                         out.payloads.emplace_back(io::as_text(payload));
                       })
                 .has_value();
    data = data.subspan(n);
  }
  out.may_end = !out.ok || reader.may_end();
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = 1 + data[0] % 17;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  if (read(bytes, step) != read(bytes, bytes.size() + 1)) std::abort();
  const auto target = p2p::connect_udp_target(io::as_text(bytes));
  if (target && p2p::connect_udp_target(p2p::connect_udp_path(*target)) != target) std::abort();
  return 0;
}
