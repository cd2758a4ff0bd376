#include "proxy/udp/capsule.h"

#include <algorithm>

#include "core/io/stream.h"
#include "p2p/varint.h"

namespace edgemesh::proxy {

namespace {
constexpr uint64_t kDatagram = 0x00;
constexpr uint64_t kUdpContext = 0;
constexpr size_t kMaxContext = 8;  // bytes
}  // namespace

size_t put_capsule_header(size_t size, uint8_t* out) {
  size_t n = p2p::put_varint(kDatagram, out);
  n += p2p::put_varint(size + 1, out + n);
  return n + p2p::put_varint(kUdpContext, out + n);
}

Result<CapsuleReader::Head> CapsuleReader::read_head(std::span<const uint8_t> data) {
  Head head;
  uint64_t type = 0;
  const size_t a = p2p::get_varint(io::as_text(data), &type);
  const size_t b = a == 0 ? 0 : p2p::get_varint(io::as_text(data.subspan(a)), &head.length);
  if (b == 0) return head;
  head.size = a + b;
  head.datagram = type == kDatagram;
  if (head.datagram && head.length > kMaxUdpPayload + kMaxContext)
    return fail(ErrorCode::kProtocol, "a datagram of {} bytes", head.length);
  return head;
}

Result<> CapsuleReader::give(std::span<const uint8_t> value, const Sink& sink) {
  uint64_t context = 0;
  const size_t n = p2p::get_varint(io::as_text(value), &context);
  if (n == 0) return fail(ErrorCode::kProtocol, "a datagram without a context");
  if (context != kUdpContext) return {};
  if (value.size() - n > kMaxUdpPayload)
    return fail(ErrorCode::kProtocol, "a datagram of {} bytes", value.size() - n);
  sink(value.subspan(n));
  return {};
}

// Adds to held_ what belongs to its capsule. It is empty again when that was completed.
Result<> CapsuleReader::complete_held(std::span<const uint8_t>* data, const Sink& sink) {
  EM_TRY(Head head, read_head(held_));
  while (head.size == 0 && !data->empty()) {
    held_.push_back(data->front());
    *data = data->subspan(1);
    EM_TRY(head, read_head(held_));
  }
  if (head.size == 0) return {};
  if (!head.datagram) {
    skip_ = head.length;  // a head is held alone: nothing of the value came
    held_.clear();
    return {};
  }
  const size_t total = head.size + static_cast<size_t>(head.length);
  const size_t take = std::min(total - held_.size(), data->size());
  held_.insert(held_.end(), data->begin(), data->begin() + static_cast<std::ptrdiff_t>(take));
  *data = data->subspan(take);
  if (held_.size() < total) return {};
  done_.swap(held_);
  held_.clear();
  return give(std::span<const uint8_t>(done_).subspan(head.size), sink);
}

Result<> CapsuleReader::feed(std::span<const uint8_t> data, const Sink& sink) {
  while (!data.empty()) {
    if (skip_ > 0) {
      const auto n = static_cast<size_t>(std::min<uint64_t>(skip_, data.size()));
      skip_ -= n;
      data = data.subspan(n);
      continue;
    }
    if (!held_.empty()) {
      EM_TRY_VOID(complete_held(&data, sink));
      continue;
    }
    EM_TRY(Head head, read_head(data));
    if (head.size > 0 && !head.datagram) {
      skip_ = head.length;
      data = data.subspan(head.size);
    } else if (head.size > 0 && head.length <= data.size() - head.size) {
      const auto length = static_cast<size_t>(head.length);
      EM_TRY_VOID(give(data.subspan(head.size, length), sink));
      data = data.subspan(head.size + length);
    } else {
      if (head.size > 0) held_.reserve(head.size + static_cast<size_t>(head.length));
      held_.assign(data.begin(), data.end());
      return {};
    }
  }
  return {};
}

}  // namespace edgemesh::proxy
