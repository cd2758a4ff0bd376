#include "proxy/http/h2_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

namespace edgemesh::proxy::h2 {

namespace {

// Size classes of 8, 24, 40... bytes: what glibc makes of any request, so no room is lost.
constexpr size_t kClasses = 32;
constexpr size_t kMaxSmall = (kClasses - 1) * 16 + 8;
constexpr size_t kKeepBytes = 512 * 1024;  // of a thread

constexpr size_t kPage = 4096;
constexpr size_t kMaxPayload = 16384;   // of a frame; its buffer is the one block that is larger
constexpr size_t kMaxPages = 5;
constexpr size_t kSlabBytes = 1 << 20;  // what is asked of the system at a time
constexpr size_t kWarmBlocks = 64;      // free blocks of a size that keep their memory

size_t class_of(size_t bytes) {
  return (bytes + 7) / 16;
}

struct FreeBlock {
  FreeBlock* next;
};

// Plain data, so that sessions which end after the thread's objects still find it in order.
struct SmallBlocks {
  FreeBlock* first[kClasses];
  size_t bytes;
  bool closed;
};
thread_local SmallBlocks small{};

struct CloseSmallBlocks {
  ~CloseSmallBlocks() {
    small.closed = true;
    for (FreeBlock*& list : small.first)
      while (list != nullptr) std::free(std::exchange(list, list->next));
  }
};

// Of the process: only a new connection and one that goes come here. Address space that was taken is
// kept, as an allocator's arena; its memory goes back.
struct PageBlocks {
  std::mutex mutex;
  std::vector<void*> warm[kMaxPages + 1];
  std::vector<void*> cold[kMaxPages + 1];
  char* slab = nullptr;
  size_t left = 0;

  void* take(size_t pages) {
    std::lock_guard lock(mutex);
    for (auto* list : {&warm[pages], &cold[pages]}) {
      if (list->empty()) continue;
      void* block = list->back();
      list->pop_back();
      return block;
    }
    size_t bytes = pages * kPage;
    if (left < bytes) {
      void* fresh =
          mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (fresh == MAP_FAILED) return nullptr;
      slab = static_cast<char*>(fresh);
      left = kSlabBytes;
    }
    left -= bytes;
    return std::exchange(slab, slab + bytes);
  }
  void give(void* block, size_t pages) {
    std::lock_guard lock(mutex);
    if (warm[pages].size() < kWarmBlocks) return warm[pages].push_back(block);
    madvise(block, pages * kPage, MADV_DONTNEED);
    cold[pages].push_back(block);
  }
};
// Never destroyed: a session may end after the static objects.
PageBlocks& page_blocks() {
  static auto* const blocks = new PageBlocks;
  return *blocks;
}

void* take_small(size_t bytes) {
  size_t index = class_of(bytes);
  if (FreeBlock* block = small.first[index]; block != nullptr) {
    small.first[index] = block->next;
    small.bytes -= index * 16 + 8;
    return block;
  }
  return std::malloc(index * 16 + 8);
}

void give_small(void* memory) {
  size_t usable = malloc_usable_size(memory);
  size_t index = usable < 8 ? kClasses : (usable - 8) / 16;
  if (index >= kClasses || small.closed || small.bytes >= kKeepBytes) return std::free(memory);
  thread_local CloseSmallBlocks at_exit;
  auto* block = static_cast<FreeBlock*>(memory);
  block->next = small.first[index];
  small.first[index] = block;
  small.bytes += index * 16 + 8;
}

}  // namespace

SessionMemory::SessionMemory()
    : functions_{this, allocate, release, allocate_zeroed, reallocate} {}

SessionMemory::PageBlock* SessionMemory::find(void* memory) {
  if (reinterpret_cast<uintptr_t>(memory) % kPage != 0) return nullptr;
  auto it = std::find_if(blocks_.begin(), blocks_.end(),
                         [memory](const PageBlock& b) { return b.start == memory; });
  return it == blocks_.end() ? nullptr : &*it;
}

void* SessionMemory::allocate_pages(size_t bytes) {
  auto free_place = std::find_if(blocks_.begin(), blocks_.end(),
                                 [](const PageBlock& b) { return b.start == nullptr; });
  if (free_place == blocks_.end()) return nullptr;
  size_t pages = (bytes + kPage - 1) / kPage;
  void* start = page_blocks().take(pages);
  if (start != nullptr) *free_place = {start, pages, bytes};
  return start;
}

void* SessionMemory::allocate(size_t bytes, void* self) {
  if (bytes <= kMaxSmall) return take_small(bytes);
  auto* memory = static_cast<SessionMemory*>(self);
  if (!memory->made_ && bytes >= kPage && bytes <= kMaxPages * kPage) {
    if (void* block = memory->allocate_pages(bytes); block != nullptr) return block;
  }
  return std::malloc(bytes);
}

void* SessionMemory::allocate_zeroed(size_t count, size_t bytes, void* self) {
  size_t total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
  void* memory = allocate(total, self);
  if (memory != nullptr) std::memset(memory, 0, total);
  return memory;
}

void* SessionMemory::reallocate(void* memory, size_t bytes, void* self) {
  if (memory == nullptr) return allocate(bytes, self);
  PageBlock* pages = static_cast<SessionMemory*>(self)->find(memory);
  size_t room = pages != nullptr ? pages->pages * kPage : malloc_usable_size(memory);
  if (bytes <= room && (pages != nullptr || room <= 2 * bytes)) {
    if (pages != nullptr) pages->bytes = bytes;
    return memory;
  }
  void* moved = allocate(bytes, self);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, memory, std::min(room, bytes));
  release(memory, self);
  return moved;
}

void SessionMemory::release(void* memory, void* self) {
  if (memory == nullptr) return;
  if (PageBlock* block = static_cast<SessionMemory*>(self)->find(memory); block != nullptr) {
    page_blocks().give(block->start, block->pages);
    *block = {};
    return;
  }
  give_small(memory);
}

void SessionMemory::release_idle() {
  for (const PageBlock& block : blocks_) {
    if (block.start == nullptr) continue;
    const char* bytes = static_cast<const char*>(block.start);
    bool frames = block.bytes > kMaxPayload;
    bool zero = !frames && std::all_of(bytes, bytes + block.bytes, [](char c) { return c == 0; });
    if (frames || zero) madvise(block.start, block.pages * kPage, MADV_DONTNEED);
  }
}

}  // namespace edgemesh::proxy::h2
