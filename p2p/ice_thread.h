// IceThread: the one thread in which libnice lives, with a GMainContext of its own. Control only.
// post() is thread-safe; the destructor runs what was posted, then joins.
#pragma once

#include <memory>

#include "core/base/function.h"
#include "core/base/result.h"

struct _GMainContext;  // NOLINT(bugprone-reserved-identifier): GLib's

namespace edgemesh::p2p {

class IceThread {
 public:
  static Result<std::unique_ptr<IceThread>> start();
  ~IceThread();
  IceThread(const IceThread&) = delete;
  IceThread& operator=(const IceThread&) = delete;

  void post(UniqueFunction<void()> task);
  _GMainContext* context() const;
  // On the ice thread: agents that give their relay's allocation back. The end waits a little for them.
  void note_closing(int more);

  struct Impl;

 private:
  explicit IceThread(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::p2p
