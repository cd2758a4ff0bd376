// Which streams of a server's connection are closed, and how: what a frame on one of them means depends
// on it (RFC 9113 5.1). nghttp2 could keep closed streams for that, at 300 bytes each. For
// proxy/http/h2_* only.
//
// A stream is closed in order unless it is remembered otherwise; the last kRemembered that were reset
// are. Up to the newest that was forgotten nothing is held against the peer.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace edgemesh::proxy::h2 {

class ClosedStreams {
 public:
  static constexpr size_t kRemembered = 16;

  enum Verdict : uint8_t {
    kIgnore,       // it may have been on its way when we reset the stream, or never took it
    kStreamError,  // the peer reset the stream itself
    kClosed,       // the peer had ended it: a connection error
    kNeverOpened,  // jumped over: a connection error
  };

  // A HEADERS frame of a stream that is newer than all before. True when it is one.
  bool begin(int32_t id) {
    settle();
    if (id <= last_) return false;
    if (id > last_ + 2) {
      gap_from_ = last_ + 2;
      gap_to_ = id - 2;
    }
    last_ = opening_ = id;
    return true;
  }
  void opened(int32_t id) {
    if (opening_ == id) opening_ = 0;
    last_ = std::max(last_, id);
  }
  void reset(int32_t id, bool by_peer) {
    if (find(id) != nullptr) return;
    uint32_t& place = places_[at_++ % kRemembered];
    forgotten_ = std::max(forgotten_, static_cast<int32_t>(place >> 1));
    place = (static_cast<uint32_t>(id) << 1) | (by_peer ? 1 : 0);
  }
  // Of a stream that nghttp2 does not know.
  Verdict judge(int32_t id) {
    settle();
    if (const uint32_t* place = find(id); place != nullptr)
      return (*place & 1) != 0 ? kStreamError : kIgnore;
    if (id > last_ || id <= forgotten_) return kIgnore;  // nghttp2 knows what to do with idle ones
    return id >= gap_from_ && id <= gap_to_ ? kNeverOpened : kClosed;
  }

 private:
  // A stream that begin() saw and that was not opened by then was refused.
  void settle() {
    if (opening_ != 0) reset(opening_, false);
    opening_ = 0;
  }
  const uint32_t* find(int32_t id) const {
    for (const uint32_t& place : places_)
      if (static_cast<int32_t>(place >> 1) == id) return &place;
    return nullptr;
  }

  std::array<uint32_t, kRemembered> places_{};  // id * 2, and 1 when the peer reset it
  uint32_t at_ = 0;
  int32_t last_ = -1;
  int32_t opening_ = 0;
  int32_t forgotten_ = 0;
  int32_t gap_from_ = 0;  // of the newest jump
  int32_t gap_to_ = -1;
};

}  // namespace edgemesh::proxy::h2
