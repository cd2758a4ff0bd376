#include "proxy/udp/tunnel.h"

#include <algorithm>
#include <cstring>

#include "core/io/datagram_side.h"

namespace edgemesh::proxy {

namespace {
constexpr Duration kLinger = std::chrono::seconds(10);
constexpr size_t kContextBytes = 1;  // of context 0

void count(bool sent, size_t size, SendOutcome* out) {
  if (!sent) {
    ++out->dropped;
    return;
  }
  ++out->datagrams;
  out->bytes += size;
}
}

DatagramTunnel::DatagramTunnel(io::Loop& loop, std::unique_ptr<io::Stream> stream, Owner& owner)
    : loop_(loop), owner_(&owner), stream_(std::move(stream)) {
  stream_->set_handler(this);
}

SendOutcome DatagramTunnel::send(std::span<const Datagram> items) {
  SendOutcome out;
  uint8_t* const scratch = loop_.scratch();
  io::DatagramSide* const side = stream_->datagrams();
  const size_t room = side == nullptr ? 0 : side->max_datagram();
  size_t ends[2 * kBatch];  // of each capsule, and before it the size of its payload
  size_t n = 0, used = 0;
  auto flush = [&] {
    write({ends, 2 * n}, &out);
    n = used = 0;
  };
  for (const Datagram& item : items) {
    ++out.taken;
    const size_t step = item.segment > 0 ? item.segment : std::max<size_t>(1, item.data.size());
    size_t at = 0;
    do {
      auto data = item.data.subspan(at, std::min(step, item.data.size() - at));
      at += step;
      if (n == kBatch || used + kCapsuleOverhead + data.size() > io::Loop::kScratchBytes) flush();
      used += put_capsule_header(data.size(), scratch + used);
      if (!data.empty()) std::memcpy(scratch + used, data.data(), data.size());
      // The capsule's head ends with the context, which is all that goes before a datagram.
      if (data.size() + kContextBytes <= room) {
        const uint8_t* begin = scratch + used - kContextBytes;
        count(side->send_datagram({begin, kContextBytes + data.size()}), data.size(), &out);
        used = n == 0 ? 0 : ends[2 * n - 1];
        continue;
      }
      used += data.size();
      ends[2 * n] = data.size();
      ends[2 * n + 1] = used;
      ++n;
    } while (at < item.data.size());
  }
  flush();
  return out;
}

void DatagramTunnel::write(std::span<const size_t> ends, SendOutcome* out) {
  if (ends.empty()) return;
  const uint8_t* bytes = loop_.scratch();
  size_t taken = 0;
  if (rest_.empty()) {
    const size_t all = ends.back();
    while (taken < all) {
      auto wrote = stream_->write({bytes + taken, all - taken});
      if (wrote.status != io::IoResult::kOk) break;
      taken += wrote.n;
    }
  }
  size_t begin = 0;
  for (size_t i = 0; i < ends.size(); i += 2) {
    const size_t end = ends[i + 1];
    if (begin >= taken) {
      ++out->dropped;
    } else {
      ++out->datagrams;
      out->bytes += ends[i];
      if (end > taken)
        rest_.assign(reinterpret_cast<const char*>(bytes) + taken, end - taken);  // NOLINT
    }
    begin = end;
  }
}

void DatagramTunnel::on_writable() {
  while (!rest_.empty()) {
    auto wrote = stream_->write(io::as_bytes(rest_));
    if (wrote.status != io::IoResult::kOk) return;
    rest_.erase(0, wrote.n);
  }
}

Result<> DatagramTunnel::read_datagrams(io::DatagramSide& side) {
  constexpr size_t kStep = io::DatagramSide::kMaxBytes;
  static_assert(kBatch * kStep <= io::Loop::kScratchBytes);
  if (const uint64_t lost = side.take_lost(); lost > 0) owner_->on_tunnel_lost(lost);
  Datagram items[kBatch];
  for (bool more = true; more;) {
    size_t n = 0;
    while (n < kBatch) {
      uint8_t* const into = loop_.scratch() + n * kStep;
      const auto size = side.read_datagram({into, kStep});
      more = size.has_value();
      if (!more) break;
      if (*size < kContextBytes) return fail(ErrorCode::kProtocol, "a datagram without a context");
      if (into[0] == 0) items[n++] = Datagram{{into + kContextBytes, *size - kContextBytes}};
      // Those of contexts that nobody has opened are dropped.
    }
    if (n > 0) owner_->on_tunnel_datagrams({items, n});
  }
  return {};
}

void DatagramTunnel::on_readable() {
  if (io::DatagramSide* side = stream_->datagrams(); side != nullptr) {
    if (auto read = read_datagrams(*side); !read) {
      owner_->on_tunnel_end(&read.error());
      return;
    }
  }
  Datagram items[kBatch];
  size_t n = 0;
  auto flush = [&] {
    if (n > 0) owner_->on_tunnel_datagrams({items, n});
    n = 0;
  };
  const CapsuleReader::Sink sink = [&](std::span<const uint8_t> payload) {
    items[n++] = Datagram{payload};
    if (n == kBatch) flush();
  };
  for (;;) {
    auto got = stream_->read({loop_.scratch(), io::Loop::kScratchBytes});
    if (got.status == io::IoResult::kOk) {
      auto read = reader_.feed({loop_.scratch(), got.n}, sink);
      flush();
      if (read) continue;
      owner_->on_tunnel_end(&read.error());
      return;
    }
    if (got.status != io::IoResult::kEof) return;  // nothing more, or on_error follows
    owner_->on_tunnel_end(nullptr);
    return;
  }
}

struct ClosingTunnels::Entry final : DatagramTunnel::Owner, ListNode<Entry> {
  void on_tunnel_datagrams(std::span<const Datagram>) override {}  // nobody waits for them
  void on_tunnel_end(const Error*) override {
    --all->size_;
    delete this;
  }
  ClosingTunnels* all = nullptr;
  TimePoint until{};
  std::unique_ptr<DatagramTunnel> tunnel;
};

ClosingTunnels::ClosingTunnels(io::Loop& loop)
    : loop_(loop), entries_(std::make_unique<List<Entry>>()), timer_(loop, [this] { sweep(); }) {}

ClosingTunnels::~ClosingTunnels() {
  while (Entry* entry = entries_->front()) delete entry;
}

void ClosingTunnels::add(std::unique_ptr<DatagramTunnel> tunnel) {
  if (size_ >= kMax) return;  // cut off
  tunnel->finish();
  auto* entry = new Entry();
  entry->all = this;
  entry->until = loop_.now() + kLinger;
  tunnel->set_owner(*entry);
  entry->tunnel = std::move(tunnel);
  entries_->push_back(*entry);
  ++size_;
  if (!timer_.active()) timer_.start_at(entry->until);
}

void ClosingTunnels::sweep() {
  Entry* entry = entries_->front();
  for (; entry != nullptr && entry->until <= loop_.now(); entry = entries_->front()) {
    --size_;
    delete entry;
  }
  if (entry != nullptr) timer_.start_at(entry->until);
}

}  // namespace edgemesh::proxy
