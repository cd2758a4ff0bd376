// Child processes: run a program with input, get its output and exit status. No shell.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/loop.h"

namespace edgemesh::io {

struct ProcessResult {
  int exit_status = -1;  // -1: ended by a signal
  int term_signal = 0;
  std::string out;  // up to 1 MiB each
  std::string err;
};

// Seam for tests: the real one runs programs, a fake records them.
class Executor {
 public:
  virtual ~Executor() = default;
  // Blocking, for start-up, shutdown and the reset command; at most `limit`. argv[0] is looked up in
  // PATH (with /usr/sbin and /sbin added). kNotFound when the program is not installed.
  virtual Result<ProcessResult> run(const std::vector<std::string>& argv, std::string_view input,
                                    Duration limit = std::chrono::seconds(10)) = 0;
};

Executor& system_executor();

}  // namespace edgemesh::io
