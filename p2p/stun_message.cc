#include "p2p/stun_message.h"

#include <algorithm>
#include <cstring>

namespace edgemesh::p2p {

namespace {
// type:2 length:2 cookie:4 id:12, then attributes type:2 length:2 value, padded to 4.
constexpr size_t kHeader = 20;
constexpr uint8_t kCookie[4] = {0x21, 0x12, 0xa4, 0x42};
constexpr uint16_t kErrorCode = 0x0009;
constexpr uint16_t kXorMappedAddress = 0x0020;
constexpr uint16_t kRequestedTransport = 0x0019;

uint16_t read16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }

std::optional<SockAddr> xor_address(std::span<const uint8_t> value, const uint8_t* cookie_and_id) {
  if (value.size() < 8) return std::nullopt;
  size_t size = value[1] == 1 ? 4 : value[1] == 2 ? 16 : 0;
  if (size == 0 || value.size() < 4 + size) return std::nullopt;
  uint8_t bytes[16];
  for (size_t i = 0; i < size; ++i) bytes[i] = value[4 + i] ^ cookie_and_id[i];
  auto port = static_cast<uint16_t>(read16(value.data() + 2) ^ read16(kCookie));
  return SockAddr{size == 4 ? IpAddr::v4(static_cast<const void*>(bytes)) : IpAddr::v6(bytes), port};
}
}  // namespace

std::vector<uint8_t> stun_request(StunMethod method, const StunId& id) {
  std::vector<uint8_t> out(kHeader);
  out[1] = static_cast<uint8_t>(method);
  std::memcpy(out.data() + 4, kCookie, sizeof kCookie);
  std::memcpy(out.data() + 8, id.data(), id.size());
  if (method == kStunAllocate) {
    constexpr uint8_t kUdp = 17;
    const uint8_t attribute[] = {0, kRequestedTransport, 0, 4, kUdp, 0, 0, 0};
    out.resize(kHeader + sizeof attribute);
    std::memcpy(out.data() + kHeader, attribute, sizeof attribute);
    out[3] = sizeof attribute;
  }
  return out;
}

Result<StunAnswer> parse_stun_answer(std::span<const uint8_t> data) {
  if (data.size() < kHeader || std::memcmp(data.data() + 4, kCookie, sizeof kCookie) != 0)
    return fail(ErrorCode::kProtocol, "not a STUN message");
  uint16_t type = read16(data.data());
  size_t length = read16(data.data() + 2);
  if ((type & 0xc000) != 0 || length % 4 != 0 || kHeader + length > data.size())
    return fail(ErrorCode::kProtocol, "STUN message is cut short");
  StunAnswer answer;
  answer.success = (type & 0x0110) == 0x0100;
  if (!answer.success && (type & 0x0110) != 0x0110) return fail(ErrorCode::kProtocol, "not a STUN answer");
  answer.method = static_cast<StunMethod>(type & 0x000f);
  std::copy_n(data.data() + 8, answer.id.size(), answer.id.begin());
  auto rest = data.subspan(kHeader, length);
  while (rest.size() >= 4) {
    uint16_t kind = read16(rest.data());
    size_t size = read16(rest.data() + 2);
    if (size > rest.size() - 4) return fail(ErrorCode::kProtocol, "STUN attribute is cut short");
    auto value = rest.subspan(4, size);
    if (kind == kXorMappedAddress && !answer.mapped) answer.mapped = xor_address(value, data.data() + 4);
    if (kind == kErrorCode && size >= 4) answer.error = (value[2] & 7) * 100 + value[3];
    rest = rest.subspan(std::min(rest.size(), 4 + (size + 3) / 4 * 4));
  }
  return answer;
}

}  // namespace edgemesh::p2p
