// Batch: several writes at a time, one answer when all are done: the first error, or success. An
// object that is gone already is no error. Threads: one loop.
#pragma once

#include <memory>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class Batch : public std::enable_shared_from_this<Batch> {
 public:
  // part() is called `parts` times; with 0 parts, `done` runs now.
  static std::shared_ptr<Batch> make(size_t parts, WorkQueue::Done done) {
    auto batch = std::shared_ptr<Batch>(new Batch(parts, std::move(done)));
    if (parts == 0) batch->done_({});
    return batch;
  }
  Cluster::Done part() {
    return [self = shared_from_this()](Result<SharedObject> result) {
      if (!result && result.error().code != ErrorCode::kNotFound && self->result_) {
        self->result_ = fail(result.error());
      }
      if (--self->left_ == 0) self->done_(std::move(self->result_));
    };
  }

 private:
  Batch(size_t parts, WorkQueue::Done done) : left_(parts), done_(std::move(done)) {}

  size_t left_;
  WorkQueue::Done done_;
  Result<> result_;
};

}  // namespace edgemesh::cloud::controllers
