// Where frames begin in what the peer sends: nghttp2 does not tell of all that it ignores, nor whether a
// head is half there. For proxy/http/h2_* only.
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
  explicit FrameScanner(bool preface) : left_(preface ? NGHTTP2_CLIENT_MAGIC_LEN : 0) {}
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
      nghttp2_frame_hd h = head();
      left_ = h.length;
      type_ = h.type;
      if (!block_open_) ++begun_;
      if (type_ == NGHTTP2_HEADERS || type_ == NGHTTP2_CONTINUATION)
        block_open_ = (h.flags & NGHTTP2_FLAG_END_HEADERS) == 0;
      *whole = true;
    }
    return n + more;
  }
  // Something other than DATA is half there; a header block counts as one with its continuations.
  bool halfway() const {
    return have_ > 0 || block_open_ || (left_ > 0 && type_ != NGHTTP2_DATA);
  }
  // Which one: changes when another begins.
  uint64_t begun() const { return begun_ + (have_ > 0 && !block_open_ ? 1 : 0); }
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
  uint64_t left_;  // until the next header
  uint64_t begun_ = 0;
  uint8_t type_ = NGHTTP2_SETTINGS;
  bool block_open_ = false;
};

}  // namespace edgemesh::proxy::h2
