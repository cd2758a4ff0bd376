// EndOfTurn: a call at the end of the loop's turn that costs no allocation, for what hot paths coalesce.
// Loop::defer() is for what is rare.
//
// - It runs after the deferred tasks of the turn. Scheduled again while it runs, it runs in the next turn.
// - The destructor takes it back; it may be destroyed by any call of the turn, its own one too.
// Threads: the loop's.
#pragma once

#include "core/io/loop.h"

namespace edgemesh::io {

// A place in a ring; alone it is linked to itself.
struct RingLink {
  RingLink* previous = this;
  RingLink* next = this;
  bool alone() const { return next == this; }
  void insert_before(RingLink& other) {
    previous = other.previous;
    next = &other;
    previous->next = next->previous = this;
  }
  // All of the other ring; this one is alone.
  void take(RingLink& other) {
    if (other.alone()) return;
    insert_before(other);
    other.leave();
  }
  void leave() {
    previous->next = next;
    next->previous = previous;
    previous = next = this;
  }
};

class EndOfTurn : private RingLink {
 public:
  EndOfTurn() = default;
  EndOfTurn(const EndOfTurn&) = delete;
  EndOfTurn& operator=(const EndOfTurn&) = delete;

  void schedule(Loop& loop);  // does nothing when it is scheduled already
  void cancel() { leave(); }

 protected:
  virtual ~EndOfTurn() { leave(); }
  virtual void end_of_turn() = 0;

 private:
  friend struct Loop::Impl;
};

}  // namespace edgemesh::io
