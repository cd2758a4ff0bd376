// Where frames begin in what a client sends: nghttp2 does not tell of DATA that it ignores. For
// proxy/http/h2_* only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace edgemesh::proxy::h2 {

class FrameScanner {
 public:
  // How many bytes come until a frame's header is whole, at most; `*whole`: head() is the one that
  // these bytes complete.
  size_t next(std::span<const uint8_t> data, bool* whole) {
    *whole = false;
    size_t n = static_cast<size_t>(std::min<uint64_t>(left_, data.size()));
    left_ -= n;
    if (left_ > 0) return n;
    size_t more = std::min(header_.size() - have_, data.size() - n);
    std::copy_n(data.begin() + static_cast<ptrdiff_t>(n), more,
                header_.begin() + static_cast<ptrdiff_t>(have_));
    have_ += more;
    if (have_ == header_.size()) {
      have_ = 0;
      left_ = head().length;
      *whole = true;
    }
    return n + more;
  }
  nghttp2_frame_hd head() const {
    auto at = [this](size_t i, int shift) { return static_cast<uint32_t>(header_[i]) << shift; };
    nghttp2_frame_hd head{};
    head.length = at(0, 16) | at(1, 8) | at(2, 0);
    head.type = header_[3];
    head.flags = header_[4];
    head.stream_id =
        static_cast<int32_t>((at(5, 24) | at(6, 16) | at(7, 8) | at(8, 0)) & 0x7fffffffU);
    return head;
  }

 private:
  std::array<uint8_t, 9> header_{};
  size_t have_ = 0;
  uint64_t left_ = NGHTTP2_CLIENT_MAGIC_LEN;  // until the next header
};

}  // namespace edgemesh::proxy::h2
