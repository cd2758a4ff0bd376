// The memory of one nghttp2 session. For proxy/http/h2_* only.
//
// - Small blocks come from free lists of the thread, so that a request in the steady state costs no
//   malloc(). What the lists keep is bounded (kKeepBytes).
// - The buffer for frames (16 KiB) and the table of streams, which a session has from its beginning, lie
//   on whole pages. They are given back to the system while the connection is idle: release_idle().
// Must outlive the session. Threads: the one of the session.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>

namespace edgemesh::proxy::h2 {

class SessionMemory {
 public:
  SessionMemory();
  SessionMemory(const SessionMemory&) = delete;
  SessionMemory& operator=(const SessionMemory&) = delete;

  nghttp2_mem* functions() { return &functions_; }
  void session_made() { made_ = true; }
  // Only when no frame is half sent: then nothing that is in the frame buffer will be read again.
  // The table of streams is given back when it is all zero, which means that it is empty.
  void release_idle();

 private:
  struct PageBlock {
    void* start = nullptr;
    size_t pages = 0;
    size_t bytes = 0;  // asked for
  };
  static void* allocate(size_t bytes, void* self);
  static void* allocate_zeroed(size_t count, size_t bytes, void* self);
  static void* reallocate(void* memory, size_t bytes, void* self);
  static void release(void* memory, void* self);
  PageBlock* find(void* memory);
  void* allocate_pages(size_t bytes);

  nghttp2_mem functions_;
  std::array<PageBlock, 4> blocks_;
  bool made_ = false;
};

}  // namespace edgemesh::proxy::h2
