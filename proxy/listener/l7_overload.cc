// What a process does when it comes near its limits: looks once a second, tells each change of
// state once, and gives back memory that nobody uses.
#include <malloc.h>

#include "core/base/log.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/listener/l7_side.h"

namespace edgemesh::proxy {

namespace {
constexpr int kLooksBetween = 5;  // giving memory back costs page faults
}

void L7Proxy::look_at_load() {
  if (overload_->note_refusals()) {
    if (overload_->refusing())
      EM_LOG(kWarn, "proxy", "overload: connections are refused, {} since the start",
             overload_->refused());
    else
      EM_LOG(kInfo, "proxy", "overload: no connection was refused for a second");
  }
  if (overload_->max_memory() != 0) look_at_memory();
}

void L7Proxy::look_at_memory() {
  const bool changed = overload_->note_memory(resident_memory());
  const Overload::Level level = overload_->level();
  if (changed) {
    const uint64_t used = overload_->memory() >> 20, most = overload_->max_memory() >> 20;
    if (level == Overload::kFine)
      EM_LOG(kInfo, "proxy", "overload: {} of {} MiB in use, all is taken again", used, most);
    else if (level == Overload::kTight)
      EM_LOG(kWarn, "proxy", "overload: {} of {} MiB in use, kept connections end", used, most);
    else
      EM_LOG(kError, "proxy",
             "overload: {} of {} MiB in use, requests get 503, connections are refused", used,
             most);
  }
  short_of_memory_ = level == Overload::kFine ? 0 : short_of_memory_ + 1;
  if (short_of_memory_ == 1 || (short_of_memory_ > 0 && short_of_memory_ % kLooksBetween == 0))
    give_memory_back();
}

// What was freed stays with the allocator, and would count as in use for ever after the load fell;
// and who is idle holds memory that those at work need. Clients that keep a connection have some
// seconds to learn from an answer that it ends.
void L7Proxy::give_memory_back() {
  const bool ends_idle = overload_->level() == Overload::kShed && short_of_memory_ > 1;
  each_side([ends_idle](Side& side) {
    side.worker->l7.pool().drain();
    if (!ends_idle) return;
    auto& all = side.worker->l7.connections();
    HttpConnection* next = nullptr;
    for (HttpConnection* c = all.front(); c != nullptr; c = next) {
      next = all.after(*c);
      c->drain(Drain::kNow);
    }
  });
  main_.offload([] { malloc_trim(0); }, [] {});
}

}  // namespace edgemesh::proxy
