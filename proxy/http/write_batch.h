// WriteBatch: connections that have something to send do it once a loop turn, so that an answer's head
// and body, and the answers to pipelined requests, leave in one system call. One a worker.
// Threads: the loop's.
#pragma once

#include <memory>

#include "core/io/loop.h"

namespace edgemesh::proxy {

class WriteBatch {
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
  ~WriteBatch();
  WriteBatch(const WriteBatch&) = delete;
  WriteBatch& operator=(const WriteBatch&) = delete;

  void add(Member& member);  // does nothing when it is in already

 private:
  void run();

  io::Loop& loop_;
  Member* first_ = nullptr;
  Member* last_ = nullptr;
  bool scheduled_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::proxy
