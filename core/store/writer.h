// Writer: the store thread. Work that is handed in runs there in order; all that waits is committed
// in one transaction (group commit), and only then are the `done` callbacks called, on the loop. So
// a write that was reported as done is durable, and the cost of fsync is shared.
#pragma once

#include <memory>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "core/store/database.h"

namespace edgemesh::store {

class Writer {
 public:
  // Runs on the store thread, within a transaction and a savepoint of its own: an error undoes this
  // work only.
  using Work = UniqueFunction<Result<>(Database&)>;
  using Done = UniqueFunction<void(Result<>)>;

  struct Options {
    size_t max_batch = 512;     // works in one transaction
    size_t max_queued = 65536;  // beyond: kResourceExhausted
  };

  static Result<std::unique_ptr<Writer>> start(io::Loop& loop, std::unique_ptr<Database> db,
                                               const Options& options);
  static Result<std::unique_ptr<Writer>> start(io::Loop& loop, std::unique_ptr<Database> db);
  // Commits what was submitted, ends the thread. Callbacks that wait are dropped.
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // On the loop's thread. `done` runs on the loop in the order of submission, never from within
  // submit(). It may be empty.
  void submit(Work work, Done done);

  uint64_t commits() const;  // transactions so far

 private:
  struct Impl;
  explicit Writer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace edgemesh::store
