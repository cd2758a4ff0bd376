#include "p2p/quic_buffers.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace edgemesh::p2p {

namespace {
constexpr size_t kSmallChunk = 2 * 1024;   // a stream that says little holds little
constexpr size_t kMediumChunk = 16 * 1024;
constexpr size_t kLargeChunk = 64 * 1024;

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kKeptBytes = 0;  // each use after its end shall be seen
#else
constexpr size_t kKeptBytes = 8 << 20;  // a thread
#endif

thread_local bool free_list_gone = false;  // the thread ends; objects may outlive the list

struct FreeList {
  std::vector<uint8_t*> chunks;  // kLargeChunk each
  FreeList() { chunks.reserve(kKeptBytes / kLargeChunk); }
  ~FreeList() {
    free_list_gone = true;
    for (uint8_t* chunk : chunks) delete[] chunk;
  }
};

FreeList& free_list() {
  thread_local FreeList list;
  return list;
}

ChunkMemory take_chunk(size_t capacity) {
  if (capacity == kLargeChunk && !free_list_gone && !free_list().chunks.empty()) {
    uint8_t* chunk = free_list().chunks.back();
    free_list().chunks.pop_back();
    return ChunkMemory(chunk, {capacity});
  }
  return ChunkMemory(new uint8_t[capacity], {capacity});
}

size_t chunk_size(size_t held, size_t wanted) {
  if (held == 0 && wanted <= kSmallChunk) return kSmallChunk;
  return held + wanted <= kMediumChunk ? kMediumChunk : kLargeChunk;
}

// Copies `data` behind the last chunk; what is there keeps its address.
template <class Chunk>
void append_to(std::deque<Chunk>& chunks, size_t held, std::span<const uint8_t> data) {
  while (!data.empty()) {
    if (chunks.empty() || chunks.back().end == chunks.back().capacity) {
      Chunk chunk;
      chunk.capacity = chunk_size(held, data.size());
      chunk.data = take_chunk(chunk.capacity);
      chunks.push_back(std::move(chunk));
    }
    Chunk& last = chunks.back();
    size_t n = std::min(data.size(), last.capacity - last.end);
    std::memcpy(last.data.get() + last.end, data.data(), n);
    last.end += n;
    held += n;
    data = data.subspan(n);
  }
}
}  // namespace

void ChunkFree::operator()(uint8_t* memory) const {
  if (capacity != kLargeChunk || free_list_gone ||
      free_list().chunks.size() * kLargeChunk >= kKeptBytes)
    delete[] memory;
  else
    free_list().chunks.push_back(memory);
}

void SendBuffer::append(std::span<const uint8_t> data) {
  append_to(chunks_, held_, data);
  if (budget_ != nullptr) budget_->take(data.size());
  held_ += data.size();
  unsent_ += data.size();
  total_ += data.size();
}

size_t SendBuffer::peek(Piece* pieces, size_t max) const {
  size_t count = 0;
  for (size_t i = first_unsent_; i < chunks_.size() && count < max; ++i) {
    const Chunk& chunk = chunks_[i];
    if (chunk.sent < chunk.end)
      pieces[count++] = {chunk.data.get() + chunk.sent, chunk.end - chunk.sent};
  }
  return count;
}

void SendBuffer::mark_sent(size_t n) {
  n = std::min(n, unsent_);
  unsent_ -= n;
  while (n > 0) {
    Chunk& chunk = chunks_[first_unsent_];
    size_t take = std::min(n, chunk.end - chunk.sent);
    chunk.sent += take;
    n -= take;
    if (chunk.sent < chunk.capacity) break;  // the rest of it is filled later
    ++first_unsent_;
  }
}

void SendBuffer::ack(size_t n) {
  n = std::min(n, held_ - unsent_);
  held_ -= n;
  if (budget_ != nullptr) budget_->give(n);
  while (n > 0) {
    Chunk& chunk = chunks_.front();
    size_t take = std::min(n, chunk.sent - chunk.begin);
    chunk.begin += take;
    n -= take;
    if (chunk.begin < chunk.capacity) break;
    chunks_.pop_front();
    if (first_unsent_ > 0) --first_unsent_;
  }
  // An idle stream gives its memory back.
  if (held_ == 0) {
    chunks_.clear();
    first_unsent_ = 0;
  }
}

void SendBuffer::clear() {
  if (budget_ != nullptr && held_ > 0) budget_->give(held_);
  chunks_.clear();
  first_unsent_ = held_ = unsent_ = 0;
}

void RecvBuffer::append(std::span<const uint8_t> data) {
  append_to(chunks_, size_, data);
  size_ += data.size();
}

size_t RecvBuffer::read(std::span<uint8_t> into) {
  size_t total = 0;
  while (total < into.size() && size_ > 0) {
    Chunk& chunk = chunks_.front();
    size_t n = std::min(into.size() - total, chunk.end - chunk.begin);
    std::memcpy(into.data() + total, chunk.data.get() + chunk.begin, n);
    chunk.begin += n;
    total += n;
    size_ -= n;
    if (chunk.begin == chunk.end && (chunk.end == chunk.capacity || size_ == 0)) chunks_.pop_front();
  }
  return total;
}

void RecvBuffer::clear() {
  chunks_.clear();
  size_ = 0;
}

}  // namespace edgemesh::p2p
