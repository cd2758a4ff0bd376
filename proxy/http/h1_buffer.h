// ByteBuffer: a queue of bytes that holds memory only while it is not empty; blocks come from a free
// list of the thread. For the HTTP/1 codecs. Threads: a plain value of one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace edgemesh::proxy::h1 {

class ByteBuffer {
 public:
  static constexpr size_t kBlockBytes = 16 * 1024;  // larger ones are not kept

  ByteBuffer() = default;
  ~ByteBuffer() { clear(); }
  ByteBuffer(const ByteBuffer&) = delete;
  ByteBuffer& operator=(const ByteBuffer&) = delete;

  bool empty() const { return block_ == nullptr; }
  size_t size() const { return block_ == nullptr ? 0 : block_->end - block_->begin; }
  std::string_view view() const {
    return block_ == nullptr ? std::string_view{}
                             : std::string_view{block_->data.get() + block_->begin, size()};
  }
  // Room for `bytes` behind the last byte; commit() says how many were filled (at least one).
  char* prepare(size_t bytes);
  void commit(size_t bytes) { block_->end += bytes; }
  void append(std::string_view text);
  void consume(size_t bytes);
  void clear();

  struct Block {
    std::unique_ptr<char[]> data;
    size_t capacity = 0;
    size_t begin = 0;
    size_t end = 0;
  };

 private:
  Block* block_ = nullptr;
};

}  // namespace edgemesh::proxy::h1
