#include "core/io/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>

#include "core/io/fd.h"

extern char** environ;  // NOLINT

namespace edgemesh::io {

namespace {

constexpr size_t kMaxOutput = 1 << 20;

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* env = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe)
  std::string path = std::string(env != nullptr ? env : "/usr/bin:/bin") + ":/usr/sbin:/sbin";
  for (size_t at = 0; at <= path.size();) {
    size_t end = std::min(path.find(':', at), path.size());
    std::string candidate = path.substr(at, end - at) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
    at = end + 1;
  }
  return "";
}

struct Pipe {
  Fd read_end, write_end;
  static Result<Pipe> make() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return fail_errno("pipe2", errno);
    return Pipe{Fd(fds[0]), Fd(fds[1])};
  }
};

// Moves input and output until the child closed both ends or the time is over. False: time over.
bool exchange(Pipe& in, Pipe& out, Pipe& err, std::string_view input, ProcessResult& result,
              TimePoint end) {
  fcntl(in.write_end.get(), F_SETFL, O_NONBLOCK);
  if (input.empty()) in.write_end.reset();
  char buffer[16384];
  while (out.read_end.valid() || err.read_end.valid()) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - system_clock().now());
    if (left.count() <= 0) return false;
    pollfd fds[3] = {{in.write_end.get(), POLLOUT, 0},
                     {out.read_end.get(), POLLIN, 0},
                     {err.read_end.get(), POLLIN, 0}};
    if (poll(fds, 3, static_cast<int>(left.count())) < 0 && errno != EINTR) return false;
    if (fds[0].revents != 0 && in.write_end.valid()) {
      ssize_t n = write(in.write_end.get(), input.data(), input.size());
      if (n > 0) input.remove_prefix(static_cast<size_t>(n));
      if (input.empty() || (n < 0 && errno != EAGAIN)) in.write_end.reset();
    }
    auto take = [&](Pipe& pipe, std::string& into, short revents) {
      if (revents == 0 || !pipe.read_end.valid()) return;
      ssize_t n = read(pipe.read_end.get(), buffer, sizeof buffer);
      if (n <= 0)
        pipe.read_end.reset();
      else if (into.size() < kMaxOutput)
        into.append(buffer, static_cast<size_t>(n));
    };
    take(out, result.out, fds[1].revents);
    take(err, result.err, fds[2].revents);
  }
  return true;
}

class SystemExecutor final : public Executor {
 public:
  Result<ProcessResult> run(const std::vector<std::string>& argv, std::string_view input,
                            Duration limit) override {
    std::string program = find_program(argv.at(0));
    if (program.empty())
      return fail(ErrorCode::kNotFound, "'{}' is not installed (not found in PATH)", argv[0]);
    EM_TRY(Pipe in, Pipe::make());
    EM_TRY(Pipe out, Pipe::make());
    EM_TRY(Pipe err, Pipe::make());
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.read_end.get(), 0);
    posix_spawn_file_actions_adddup2(&actions, out.write_end.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err.write_end.get(), 2);
    std::vector<char*> args;
    for (const auto& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));  // NOLINT
    args.push_back(nullptr);
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    pid_t pid = 0;
    int rc = posix_spawn(&pid, program.c_str(), &actions, &attr, args.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (rc != 0) return fail_errno(fmt::format("run {}", program), rc);
    in.read_end.reset();
    out.write_end.reset();
    err.write_end.reset();
    ProcessResult result;
    bool in_time = exchange(in, out, err, input, result, system_clock().now() + limit);
    if (!in_time) kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!in_time) return fail(ErrorCode::kTimeout, "{} did not end in time", program);
    if (WIFEXITED(status)) result.exit_status = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) result.term_signal = WTERMSIG(status);
    return result;
  }
};

}  // namespace

Executor& system_executor() {
  static SystemExecutor executor;
  return executor;
}

}  // namespace edgemesh::io
