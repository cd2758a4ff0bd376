// Datagrams one behind the other in one piece of memory, so that taking one in is a copy and no allocation,
// and equal ones that follow each other are read as a train. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace edgemesh::p2p {

class PacketQueue {
 public:
  bool empty() const { return sizes_.empty(); }
  size_t size() const { return sizes_.size(); }
  void push(std::span<const uint8_t> packet) {
    if (packet.empty() || packet.size() > UINT16_MAX) return;
    bytes_.insert(bytes_.end(), packet.begin(), packet.end());
    sizes_.push_back(static_cast<uint16_t>(packet.size()));
  }
  // Calls f(train, segment) in order: datagrams of `segment` bytes each, at most kMaxTrain; the last may be
  // shorter. False from f ends it.
  template <class F>
  void each_train(F f) const {
    size_t at = 0;
    for (size_t i = 0; i < sizes_.size();) {
      size_t segment = sizes_[i];
      size_t bytes = 0;
      size_t end = i;
      while (end < sizes_.size() && end - i < kMaxTrain && sizes_[end] <= segment) {
        bytes += sizes_[end];
        if (sizes_[end++] < segment) break;
      }
      if (!f(std::span<const uint8_t>(bytes_).subspan(at, bytes), segment)) return;
      at += bytes;
      i = end;
    }
  }
  // Memory is kept for the next ones, unless there was an unusual lot of them.
  void clear() {
    bytes_.clear();
    sizes_.clear();
    if (bytes_.capacity() > kKeepBytes) std::vector<uint8_t>().swap(bytes_);
  }
  void swap(PacketQueue& other) {
    bytes_.swap(other.bytes_);
    sizes_.swap(other.sizes_);
  }

  static constexpr size_t kMaxTrain = 64;

 private:
  static constexpr size_t kKeepBytes = 256 << 10;
  std::vector<uint8_t> bytes_;
  std::vector<uint16_t> sizes_;
};

}  // namespace edgemesh::p2p
