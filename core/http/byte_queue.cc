#include "core/http/byte_queue.h"

#include <algorithm>
#include <cstring>

namespace edgemesh::http {

struct ByteQueue::FreeList {
  static constexpr size_t kMax = 256;  // 4 MiB a thread
  Block* first = nullptr;
  size_t count = 0;
  ~FreeList() {
    while (first != nullptr) {
      Block* next = first->next;
      delete first;
      first = next;
    }
  }
};

ByteQueue::FreeList& ByteQueue::free_list() {
  thread_local FreeList list;
  return list;
}

ByteQueue::Block* ByteQueue::take() {
  FreeList& list = free_list();
  if (list.first == nullptr) return new Block;
  Block* block = list.first;
  list.first = block->next;
  --list.count;
  block->next = nullptr;
  return block;
}

void ByteQueue::give(Block* block) {
  FreeList& list = free_list();
  if (list.count >= FreeList::kMax) {
    delete block;
    return;
  }
  block->next = list.first;
  list.first = block;
  ++list.count;
}

void ByteQueue::append(std::span<const uint8_t> data) {
  size_ += data.size();
  while (!data.empty()) {
    if (tail_ == nullptr) {
      head_ = tail_ = take();
      head_at_ = tail_at_ = 0;
    } else if (tail_at_ == kBlockBytes) {
      tail_->next = take();
      tail_ = tail_->next;
      tail_at_ = 0;
    }
    size_t n = std::min(data.size(), kBlockBytes - tail_at_);
    std::memcpy(tail_->data + tail_at_, data.data(), n);
    tail_at_ += static_cast<uint32_t>(n);
    data = data.subspan(n);
  }
}

size_t ByteQueue::read(std::span<uint8_t> into) {
  size_t total = 0;
  while (total < into.size() && size_ > 0) {
    size_t end = head_ == tail_ ? tail_at_ : kBlockBytes;
    size_t n = std::min(into.size() - total, end - head_at_);
    std::memcpy(into.data() + total, head_->data + head_at_, n);
    head_at_ += static_cast<uint32_t>(n);
    total += n;
    size_ -= n;
    if (head_at_ < end) continue;
    Block* done = head_;
    head_ = head_->next;
    head_at_ = 0;
    if (head_ == nullptr) tail_ = nullptr;
    give(done);
  }
  return total;
}

void ByteQueue::clear() {
  while (head_ != nullptr) {
    Block* next = head_->next;
    give(head_);
    head_ = next;
  }
  tail_ = nullptr;
  size_ = 0;
}

}  // namespace edgemesh::http
