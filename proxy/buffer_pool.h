// Memory and pipes that a worker lends to connections while bytes are on their way; an idle
// connection holds none. Threads: the worker's loop.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/io/fd.h"

namespace edgemesh::proxy {

// A block that holds what one side sent and the other has not taken yet.
struct Buffer {
  std::unique_ptr<uint8_t[]> data;
  uint32_t capacity = 0;
  uint32_t begin = 0;
  uint32_t end = 0;
  size_t size() const { return end - begin; }
};

class BufferPool {
 public:
  // A buffer of at least `bytes` (at most 256 KiB); begin and end are 0.
  std::unique_ptr<Buffer> take(size_t bytes);
  void give(std::unique_ptr<Buffer> buffer);

 private:
  static constexpr size_t kClasses = 3;
  static constexpr uint32_t kSizes[kClasses] = {16 * 1024, 64 * 1024, 256 * 1024};
  static constexpr size_t kKeep[kClasses] = {64, 16, 8};  // free ones kept: 4 MiB at most
  std::vector<std::unique_ptr<Buffer>> free_[kClasses];
};

// A pipe for splice(2): what is in it never comes to user memory.
struct SplicePipe {
  io::Fd read_end;
  io::Fd write_end;
  size_t capacity = 0;
  size_t held = 0;  // bytes in it
};

class PipePool {
 public:
  // Null when the limit is reached or the system refuses: the caller copies instead.
  std::unique_ptr<SplicePipe> take();
  // A pipe that still holds bytes is closed.
  void give(std::unique_ptr<SplicePipe> pipe);

 private:
  static constexpr size_t kMaxInUse = 128;
  static constexpr size_t kKeep = 8;
  std::vector<std::unique_ptr<SplicePipe>> free_;
  size_t in_use_ = 0;
};

}  // namespace edgemesh::proxy
