#include "proxy/udp/parcel_way.h"

#include <atomic>
#include <memory>

namespace edgemesh::proxy {

namespace {
constexpr size_t kMaxParcelBytes = 8 << 20;
}

std::function<bool(UdpParcel)> parcel_way(io::Loop& to, std::function<void(UdpParcel)> deliver) {
  auto waiting = std::make_shared<std::atomic<size_t>>(0);
  auto taker = std::make_shared<std::function<void(UdpParcel)>>(std::move(deliver));
  return [&to, waiting, taker](UdpParcel parcel) {
    const size_t size = parcel.bytes.size();
    if (waiting->load() + size > kMaxParcelBytes) return false;
    *waiting += size;
    auto shared = std::make_shared<UdpParcel>(std::move(parcel));
    to.post([waiting, size, taker, shared] {
      *waiting -= size;
      (*taker)(std::move(*shared));
    });
    return true;
  };
}

}  // namespace edgemesh::proxy
