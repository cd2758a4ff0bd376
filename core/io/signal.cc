#include "core/io/loop_impl.h"

namespace edgemesh::io {

struct SignalWatch::Impl {
  uv_signal_t handle{};
  Loop* loop = nullptr;
  Task callback;
};

Result<std::unique_ptr<SignalWatch>> SignalWatch::start(Loop& loop, int signum, Task callback) {
  auto* impl = new Impl;
  impl->loop = &loop;
  impl->callback = std::move(callback);
  impl->handle.data = impl;
  if (int rc = uv_signal_init(loop.uv(), &impl->handle); rc != 0) {
    delete impl;
    return fail_errno("uv_signal_init", -rc);
  }
  std::unique_ptr<SignalWatch> watch(new SignalWatch(impl));
  int rc = uv_signal_start(
      &impl->handle, [](uv_signal_t* h, int) { static_cast<Impl*>(h->data)->callback(); }, signum);
  if (rc != 0) return fail_errno(fmt::format("watch signal {}", signum), -rc);
  return watch;
}

SignalWatch::~SignalWatch() {
  impl_->loop->uv();
  impl_->callback = [] {};
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->handle),  // NOLINT
           [](uv_handle_t* h) { delete static_cast<Impl*>(h->data); });
}

}  // namespace edgemesh::io
