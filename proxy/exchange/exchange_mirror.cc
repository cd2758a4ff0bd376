// Mirrors: copies of a request to other clusters, whose answers nobody waits for. A copy is sent when
// the request is here as a whole; one whose body is too long to be kept is not mirrored.
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kMaxMirrors = 32;
constexpr Duration kDefaultTimeout = std::chrono::seconds(15);

// So that logs tell copies from requests. A port stays a port.
std::string shadow_host(std::string_view host) {
  const size_t colon = host.rfind(':');
  const bool port = colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos;
  const size_t end = port ? colon : host.size();
  return fmt::format("{}-shadow{}", host.substr(0, end), host.substr(end));
}
}  // namespace

void Exchange::begin_mirrors() {
  const auto& mirrors = entry_->route->mirrors;
  if (mirrors.empty() || tunnel_wanted()) return;
  constexpr uint64_t kMirrorDraw = 16;
  for (size_t i = 0; i < mirrors.size() && i < kMaxMirrors; ++i)
    if (mix64(facts_.random + kMirrorDraw + i) % model::kAlways < mirrors[i].share)
      mirrors_ |= 1U << i;
  if (mirrors_ != 0 && request_ended_) send_mirrors();
}

void Exchange::send_mirrors() {
  const uint32_t which = std::exchange(mirrors_, 0);
  const auto& mirrors = entry_->route->mirrors;
  for (size_t i = 0; i < mirrors.size() && i < kMaxMirrors; ++i) {
    if ((which & (1U << i)) == 0) continue;
    HeadPtr head = take_head();
    head->copy_from(*request_);
    head->authority = head->keep(shadow_host(head->authority));
    SubRequestOptions options;
    options.cluster = mirrors[i].cluster;
    options.timeout = whole_timeout_ > Duration::zero() ? whole_timeout_ : kDefaultTimeout;
    options.keep_answer = false;
    const bool sent = !body_lost_ && worker_.send_in_background(options, std::move(head), body_);
    (sent ? worker_.stats().mirrored : worker_.stats().mirrors_dropped).add();
  }
}

}  // namespace edgemesh::proxy
