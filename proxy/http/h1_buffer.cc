#include "proxy/http/h1_buffer.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace edgemesh::proxy::h1 {

namespace {

constexpr size_t kKeepBlocks = 128;  // of a thread: 2 MiB

struct FreeBlocks {
  std::vector<ByteBuffer::Block*> list;
  ~FreeBlocks() {
    for (ByteBuffer::Block* block : list) delete block;
  }
};
thread_local FreeBlocks free_blocks;

ByteBuffer::Block* take_block(size_t bytes) {
  if (bytes <= ByteBuffer::kBlockBytes && !free_blocks.list.empty()) {
    ByteBuffer::Block* block = free_blocks.list.back();
    free_blocks.list.pop_back();
    return block;
  }
  auto* block = new ByteBuffer::Block;
  block->capacity = std::max(bytes, ByteBuffer::kBlockBytes);
  block->data.reset(new char[block->capacity]);
  return block;
}

void give_block(ByteBuffer::Block* block) {
  if (block->capacity != ByteBuffer::kBlockBytes || free_blocks.list.size() >= kKeepBlocks) {
    delete block;
    return;
  }
  block->begin = block->end = 0;
  free_blocks.list.push_back(block);
}

}  // namespace

char* ByteBuffer::prepare(size_t bytes) {
  if (block_ == nullptr) block_ = take_block(bytes);
  if (block_->capacity - block_->end < bytes) {
    size_t held = size();
    if (block_->capacity - held >= bytes && block_->begin >= held) {
      std::memcpy(block_->data.get(), block_->data.get() + block_->begin, held);
      block_->begin = 0;
      block_->end = held;
    } else {
      Block* larger = take_block(2 * (held + bytes));
      std::memcpy(larger->data.get(), block_->data.get() + block_->begin, held);
      larger->end = held;
      give_block(block_);
      block_ = larger;
    }
  }
  return block_->data.get() + block_->end;
}

void ByteBuffer::append(std::string_view text) {
  if (text.empty()) return;
  std::memcpy(prepare(text.size()), text.data(), text.size());
  commit(text.size());
}

void ByteBuffer::consume(size_t bytes) {
  if (block_ == nullptr) return;
  block_->begin += bytes;
  if (block_->begin == block_->end) clear();
}

void ByteBuffer::clear() {
  if (block_ == nullptr) return;
  give_block(block_);
  block_ = nullptr;
}

}  // namespace edgemesh::proxy::h1
