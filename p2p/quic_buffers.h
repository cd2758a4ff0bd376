// Buffers of a QUIC stream. SendBuffer keeps bytes in place until they are acknowledged (QUIC sends
// them again from there); RecvBuffer keeps what the reader has not taken. Neither is thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "core/io/send_budget.h"

namespace edgemesh::p2p {

// Memory of the buffers, from a free list of the thread: what travels at a high rate is not taken from the
// system and given back to it each time.
struct ChunkFree {
  size_t capacity = 0;
  void operator()(uint8_t* memory) const;
};
using ChunkMemory = std::unique_ptr<uint8_t[], ChunkFree>;

class SendBuffer {
 public:
  SendBuffer() = default;
  explicit SendBuffer(std::shared_ptr<io::SendBudget> budget) : budget_(std::move(budget)) {}
  ~SendBuffer() { clear(); }
  SendBuffer(const SendBuffer&) = delete;
  SendBuffer& operator=(const SendBuffer&) = delete;

  struct Piece {
    const uint8_t* data;
    size_t size;
  };

  void append(std::span<const uint8_t> data);
  // What was not given to the transport yet, oldest first, in up to `max` pieces. Returns their number.
  size_t peek(Piece* pieces, size_t max) const;
  void mark_sent(size_t n);
  // The oldest `n` bytes were acknowledged.
  void ack(size_t n);
  void clear();

  size_t held() const { return held_; }      // unsent and unacknowledged
  size_t unsent() const { return unsent_; }
  uint64_t total() const { return total_; }  // ever appended

 private:
  struct Chunk {
    ChunkMemory data;
    size_t capacity = 0, begin = 0, sent = 0, end = 0;  // begin <= sent <= end <= capacity
  };
  std::shared_ptr<io::SendBudget> budget_;  // counts held(); null: nobody counts
  std::deque<Chunk> chunks_;
  size_t first_unsent_ = 0;  // index of the chunk where unsent bytes begin
  size_t held_ = 0;
  size_t unsent_ = 0;
  uint64_t total_ = 0;
};

class RecvBuffer {
 public:
  void append(std::span<const uint8_t> data);
  size_t read(std::span<uint8_t> into);
  void clear();
  size_t size() const { return size_; }

 private:
  struct Chunk {
    ChunkMemory data;
    size_t capacity = 0, begin = 0, end = 0;
  };
  std::deque<Chunk> chunks_;
  size_t size_ = 0;
};

}  // namespace edgemesh::p2p
