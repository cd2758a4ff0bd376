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
  if (destroyed_ != nullptr) *destroyed_ = true;
  while (first_ != nullptr) first_->leave();
}

void WriteBatch::add(Member& member) {
  if (member.batch_ != nullptr) return;
  member.batch_ = this;
  member.previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = &member;
  last_ = &member;
  schedule(loop_);
}

void WriteBatch::end_of_turn() {
  // Members that are added while others flush are flushed in the same turn.
  bool destroyed = false;
  destroyed_ = &destroyed;
  while (!destroyed && first_ != nullptr) {
    Member* member = first_;
    member->leave();
    member->flush_writes();
  }
  if (destroyed) return;
  destroyed_ = nullptr;
  cancel();  // what those scheduled
}

}  // namespace edgemesh::proxy
