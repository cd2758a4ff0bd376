// JobIndexes: a set of completion indexes as a Job's status writes it, "0,2-5,9". Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace edgemesh::cloud::controllers {

class JobIndexes {
 public:
  // What cannot be read is passed over; so is what is not below `limit`.
  static JobIndexes parse(const std::string& text, int64_t limit);
  void add(int64_t index);
  bool contains(int64_t index) const;
  int64_t size() const { return size_; }
  // The lowest index at or above `from` that is not in the set.
  int64_t first_missing(int64_t from) const;
  std::string text() const;

 private:
  std::map<int64_t, int64_t> ranges_;  // first -> last, apart from each other
  int64_t size_ = 0;
};

}  // namespace edgemesh::cloud::controllers
