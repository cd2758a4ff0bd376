#include "core/store/writer.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/log.h"

namespace edgemesh::store {

namespace {

struct Item {
  Writer::Work work;
  Writer::Done done;
  Result<> result;
};

}  // namespace

struct Writer::Impl {
  Impl(io::Loop& l, std::unique_ptr<Database> d, const Options& o)
      : loop(l), db(std::move(d)), options(o) {}

  void run(const std::shared_ptr<Impl>& self);
  void commit(std::vector<Item>& batch);
  bool run_works(std::vector<Item>& batch);

  io::Loop& loop;
  std::unique_ptr<Database> db;
  const Options options;
  std::thread thread;
  std::atomic<uint64_t> commits{0};
  bool alive = true;  // loop thread: callbacks may still run

  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Item> queue;  // guarded by mutex
  bool stopping = false;    // guarded by mutex
};

void Writer::Impl::run(const std::shared_ptr<Impl>& self) {
  while (true) {
    std::vector<Item> batch;
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      if (queue.size() <= options.max_batch) {
        batch.swap(queue);
      } else {
        auto end = queue.begin() + static_cast<ptrdiff_t>(options.max_batch);
        batch.assign(std::make_move_iterator(queue.begin()), std::make_move_iterator(end));
        queue.erase(queue.begin(), end);
      }
    }
    commit(batch);
    bool last;
    {
      std::lock_guard lock(mutex);
      last = stopping;
    }
    if (last) continue;  // nobody waits for the answers any more
    loop.post([self, done = std::move(batch)]() mutable {
      for (auto& item : done) {
        if (!self->alive) return;
        if (item.done) item.done(std::move(item.result));
      }
    });
  }
}

// False: the transaction is gone.
bool Writer::Impl::run_works(std::vector<Item>& batch) {
  for (auto& item : batch) {
    // A single work needs no savepoint: the transaction is its own.
    if (batch.size() > 1) {
      if (item.result = db->exec("SAVEPOINT w"); !item.result) continue;
    }
    item.result = item.work(*db);
    if (batch.size() > 1) {
      auto end = db->exec(item.result ? "RELEASE w" : "ROLLBACK TO w; RELEASE w");
      if (!end && item.result) item.result = fail(std::move(end).error());
    }
    // On a full disk SQLite rolls the whole transaction back by itself. What follows would be committed
    // one by one, and reported as lost with the rest.
    if (!db->in_transaction()) return false;
  }
  return true;
}

void Writer::Impl::commit(std::vector<Item>& batch) {
  auto fail_all = [&batch](const Error& error) {
    EM_LOG(kError, "store", "{}", error.message);
    for (auto& item : batch) {
      if (item.result) item.result = fail(error);
    }
  };
  auto transaction = Transaction::begin(*db);
  if (!transaction) return fail_all(transaction.error());
  if (!run_works(batch)) {
    return fail_all(Error{ErrorCode::kResourceExhausted, "the transaction was rolled back (is the disk full?)", 0});
  }
  if (batch.size() == 1 && !batch[0].result) return;  // rolls back
  if (auto committed = transaction->commit(); !committed) return fail_all(committed.error());
  commits.fetch_add(1, std::memory_order_relaxed);
}

Result<std::unique_ptr<Writer>> Writer::start(io::Loop& loop, std::unique_ptr<Database> db) {
  return start(loop, std::move(db), Options());
}

Result<std::unique_ptr<Writer>> Writer::start(io::Loop& loop, std::unique_ptr<Database> db,
                                              const Options& options) {
  auto impl = std::make_shared<Impl>(loop, std::move(db), options);
  impl->thread = std::thread([impl] { impl->run(impl); });
  return std::unique_ptr<Writer>(new Writer(std::move(impl)));
}

Writer::~Writer() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_one();
  impl_->thread.join();
  impl_->alive = false;
  impl_->db.reset();
}

void Writer::submit(Work work, Done done) {
  impl_->loop.assert_on_thread();
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->queue.size() < impl_->options.max_queued) {
      impl_->queue.push_back({std::move(work), std::move(done), {}});
      impl_->wake.notify_one();
      return;
    }
  }
  if (!done) return;
  impl_->loop.post([impl = impl_, done = std::move(done)] {
    if (!impl->alive) return;
    done(fail(ErrorCode::kResourceExhausted, "database: too many writes wait ({})",
              impl->options.max_queued));
  });
}

uint64_t Writer::commits() const {
  return impl_->commits.load(std::memory_order_relaxed);
}

}  // namespace edgemesh::store
