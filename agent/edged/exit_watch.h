// ExitWatch: tells at once when the process of a container ends (pidfd), so that the runtime need
// not be asked every second. Linux 5.3; where the kernel or the process id cannot be used (the
// agent in another pid namespace), watch() says so. Threads: the loop given.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "core/io/loop.h"

namespace edgemesh::edged {

class ExitWatch {
 public:
  using OnExit = std::function<void(const std::string& container)>;
  ExitWatch(io::Loop& loop, OnExit on_exit);
  ~ExitWatch();

  // False: it cannot be watched. True also when it is watched already.
  bool watch(const std::string& container, pid_t pid);
  bool watches(const std::string& container) const { return entries_.contains(container); }
  // Those that are not named are not watched any more.
  void keep_only(const std::set<std::string>& containers);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry;
  io::Loop& loop_;
  OnExit on_exit_;
  std::unordered_map<std::string, std::unique_ptr<Entry>> entries_;
};

// The process id in what CRI's ContainerStatus tells when it is asked to be verbose; 0: it has
// none.
pid_t pid_of_info(const std::string& info_json);

}  // namespace edgemesh::edged
