#include "proxy/http/write_batch.h"

namespace edgemesh::proxy {

void WriteBatch::Member::leave() {
  if (batch_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : batch_->first_) = next_;
  (next_ != nullptr ? next_->previous_ : batch_->last_) = previous_;
  previous_ = next_ = nullptr;
  batch_ = nullptr;
}

WriteBatch::~WriteBatch() {
  *alive_ = false;
  while (first_ != nullptr) first_->leave();
}

void WriteBatch::add(Member& member) {
  if (member.batch_ != nullptr) return;
  member.batch_ = this;
  member.previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = &member;
  last_ = &member;
  if (scheduled_) return;
  scheduled_ = true;
  loop_.defer([this, alive = alive_] {
    if (*alive) run();
  });
}

void WriteBatch::run() {
  scheduled_ = false;
  // Members that are added while others flush are flushed in the same turn.
  auto alive = alive_;
  while (*alive && first_ != nullptr) {
    Member* member = first_;
    member->leave();
    member->flush_writes();
  }
}

}  // namespace edgemesh::proxy
