#include "proxy/buffer_pool.h"

#include <fcntl.h>
#include <unistd.h>

namespace edgemesh::proxy {

std::unique_ptr<Buffer> BufferPool::take(size_t bytes) {
  size_t cls = 0;
  while (cls + 1 < kClasses && kSizes[cls] < bytes) ++cls;
  auto& list = free_[cls];
  if (!list.empty()) {
    auto buffer = std::move(list.back());
    list.pop_back();
    buffer->begin = buffer->end = 0;
    return buffer;
  }
  auto buffer = std::make_unique<Buffer>();
  buffer->data.reset(new uint8_t[kSizes[cls]]);
  buffer->capacity = kSizes[cls];
  return buffer;
}

void BufferPool::give(std::unique_ptr<Buffer> buffer) {
  if (!buffer) return;
  for (size_t cls = 0; cls < kClasses; ++cls) {
    if (buffer->capacity != kSizes[cls]) continue;
    if (free_[cls].size() < kKeep[cls]) free_[cls].push_back(std::move(buffer));
    return;
  }
}

std::unique_ptr<SplicePipe> PipePool::take() {
  if (in_use_ >= kMaxInUse) return nullptr;
  std::unique_ptr<SplicePipe> pipe;
  if (!free_.empty()) {
    pipe = std::move(free_.back());
    free_.pop_back();
  } else {
    int fds[2];
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) return nullptr;
    pipe = std::make_unique<SplicePipe>();
    pipe->read_end.reset(fds[0]);
    pipe->write_end.reset(fds[1]);
    // Without privilege the system may allow less; the default of 64 KiB works as well.
    for (int size : {1 << 20, 256 << 10}) {
      if (fcntl(fds[1], F_SETPIPE_SZ, size) >= 0) break;
    }
    int capacity = fcntl(fds[1], F_GETPIPE_SZ);
    pipe->capacity = capacity > 0 ? static_cast<size_t>(capacity) : 65536;
  }
  ++in_use_;
  return pipe;
}

void PipePool::give(std::unique_ptr<SplicePipe> pipe) {
  if (!pipe) return;
  --in_use_;
  if (pipe->held == 0 && free_.size() < kKeep) free_.push_back(std::move(pipe));
}

}  // namespace edgemesh::proxy
