// A FIFO of bytes in blocks that come from a free list of the thread: appending never moves what is
// there, and an empty queue holds nothing. For core/http only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace edgemesh::http {

class ByteQueue {
 public:
  ByteQueue() = default;
  ~ByteQueue() { clear(); }
  ByteQueue(const ByteQueue&) = delete;
  ByteQueue& operator=(const ByteQueue&) = delete;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void append(std::span<const uint8_t> data);
  // Copies up to into.size() bytes from the front and drops them.
  size_t read(std::span<uint8_t> into);
  void clear();

 private:
  static constexpr size_t kBlockBytes = 16 * 1024 - 16;
  struct Block {
    Block* next = nullptr;
    uint8_t data[kBlockBytes];
  };
  struct FreeList;
  static FreeList& free_list();
  static Block* take();
  static void give(Block* block);

  Block* head_ = nullptr;
  Block* tail_ = nullptr;
  uint32_t head_at_ = 0;  // first byte in head_
  uint32_t tail_at_ = 0;  // end of the bytes in tail_
  size_t size_ = 0;
};

}  // namespace edgemesh::http
