// WriteBatch: connections that have something to send do it once a loop turn, so that an answer's head
// and body, and the answers to pipelined requests, leave in one system call. One a worker.
// Threads: the loop's.
#pragma once

#include "core/io/end_of_turn.h"

namespace edgemesh::proxy {

class WriteBatch final : private io::EndOfTurn {
 public:
  class Member {
   public:
    Member() = default;
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   protected:
    virtual ~Member() { leave(); }
    // Called once after add(), in the same turn of the loop. May destroy any member.
    virtual void flush_writes() = 0;

   private:
    friend class WriteBatch;
    void leave();
    WriteBatch* batch_ = nullptr;  // while it is in the list
    Member* previous_ = nullptr;
    Member* next_ = nullptr;
  };

  explicit WriteBatch(io::Loop& loop) : loop_(loop) {}
  ~WriteBatch() override;
  WriteBatch(const WriteBatch&) = delete;
  WriteBatch& operator=(const WriteBatch&) = delete;

  void add(Member& member);  // does nothing when it is in already

 private:
  void end_of_turn() override;

  io::Loop& loop_;
  Member* first_ = nullptr;
  Member* last_ = nullptr;
  bool* destroyed_ = nullptr;  // while members flush: the destructor reports there
};

}  // namespace edgemesh::proxy
