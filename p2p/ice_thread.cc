#include "p2p/ice_thread.h"

#include <glib.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace edgemesh::p2p {

namespace {
constexpr gint64 kLastWordsUs = 200'000;
}

// A queue of our own rather than GLib's idle sources: one lock, one wake-up for many tasks, and the
// sanitizers see the order of events.
struct IceThread::Impl {
  GMainContext* context = nullptr;
  GMainLoop* loop = nullptr;
  GSource* source = nullptr;
  std::thread thread;
  int closing = 0;  // ice thread only
  std::atomic<bool> waiting{false};
  std::mutex mutex;  // guards `tasks`
  std::vector<UniqueFunction<void()>> tasks;

  void run_tasks() {
    std::vector<UniqueFunction<void()>> due;
    {
      std::lock_guard lock(mutex);
      due.swap(tasks);
      waiting = false;
    }
    for (auto& task : due) {
      task();
      task = nullptr;
    }
  }
};

void IceThread::note_closing(int more) { impl_->closing += more; }

namespace {

struct QueueSource {
  GSource base;
  IceThread::Impl* impl;
};

}  // namespace

Result<std::unique_ptr<IceThread>> IceThread::start() {
  static GSourceFuncs functions = {
      [](GSource* source, gint* timeout) -> gboolean {
        *timeout = -1;
        return reinterpret_cast<QueueSource*>(source)->impl->waiting.load();  // NOLINT
      },
      [](GSource* source) -> gboolean {
        return reinterpret_cast<QueueSource*>(source)->impl->waiting.load();  // NOLINT
      },
      [](GSource* source, GSourceFunc, gpointer) -> gboolean {
        reinterpret_cast<QueueSource*>(source)->impl->run_tasks();  // NOLINT
        return G_SOURCE_CONTINUE;
      },
      nullptr, nullptr, nullptr};
  auto impl = std::make_unique<Impl>();
  impl->context = g_main_context_new();
  impl->loop = g_main_loop_new(impl->context, FALSE);
  impl->source = g_source_new(&functions, sizeof(QueueSource));
  reinterpret_cast<QueueSource*>(impl->source)->impl = impl.get();  // NOLINT
  g_source_attach(impl->source, impl->context);
  impl->thread = std::thread([raw = impl.get()] {
    g_main_context_push_thread_default(raw->context);
    g_main_loop_run(raw->loop);
    raw->run_tasks();
    // Agents are closed by then; a relay that answers hears of it, another forgets by itself.
    gint64 end = g_get_monotonic_time() + kLastWordsUs;
    GSource* limit = g_timeout_source_new(kLastWordsUs / 1000);  // wakes the last iteration
    g_source_set_callback(limit, [](gpointer) -> gboolean { return G_SOURCE_REMOVE; }, nullptr, nullptr);
    g_source_attach(limit, raw->context);
    while (raw->closing > 0 && g_get_monotonic_time() < end)
      g_main_context_iteration(raw->context, TRUE);
    g_source_destroy(limit);
    g_source_unref(limit);
    g_main_context_pop_thread_default(raw->context);
  });
  return std::unique_ptr<IceThread>(new IceThread(std::move(impl)));
}

IceThread::IceThread(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

IceThread::~IceThread() {
  post([loop = impl_->loop] { g_main_loop_quit(loop); });
  impl_->thread.join();
  g_source_destroy(impl_->source);
  g_source_unref(impl_->source);
  g_main_loop_unref(impl_->loop);
  g_main_context_unref(impl_->context);
}

void IceThread::post(UniqueFunction<void()> task) {
  bool first;
  {
    std::lock_guard lock(impl_->mutex);
    first = impl_->tasks.empty();
    impl_->tasks.push_back(std::move(task));
    impl_->waiting = true;
  }
  if (first) g_main_context_wakeup(impl_->context);
}

_GMainContext* IceThread::context() const { return impl_->context; }

}  // namespace edgemesh::p2p
