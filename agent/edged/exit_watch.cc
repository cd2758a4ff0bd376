#include "agent/edged/exit_watch.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/io/fd.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

// Is that process the container's? Its control group has the container's id in its path. Process
// ids of another pid namespace name other processes, or none.
bool is_of(pid_t pid, const std::string& container) {
  std::ifstream in(fmt::format("/proc/{}/cgroup", pid));
  std::stringstream text;
  text << in.rdbuf();
  return text.str().find(container) != std::string::npos;
}

}  // namespace

struct ExitWatch::Entry final : io::FdWatch::Handler {
  ExitWatch* owner = nullptr;
  std::string id;
  io::Fd fd;
  io::FdWatch watch;

  void on_fd(bool, bool) override {
    ExitWatch& to = *owner;
    const std::string container = id;
    auto last = to.entries_.extract(container);
    last.mapped()->watch.stop();
    to.loop_.defer([entry = std::move(last.mapped())] {});
    to.on_exit_(container);
  }
};

ExitWatch::ExitWatch(io::Loop& loop, OnExit on_exit) : loop_(loop), on_exit_(std::move(on_exit)) {}
ExitWatch::~ExitWatch() = default;

bool ExitWatch::watch(const std::string& container, pid_t pid) {
  if (entries_.contains(container)) return true;
  if (pid <= 0 || !is_of(pid, container)) return false;
  auto entry = std::make_unique<Entry>();
  entry->owner = this;
  entry->id = container;
  entry->fd = io::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!entry->fd.valid()) return false;
  // Registered first: a process that ended before makes its event at once.
  Entry& made = *entry;
  entries_[container] = std::move(entry);
  if (made.watch.start(loop_, made.fd.get(), &made, false)) return true;
  entries_.erase(container);
  return false;
}

void ExitWatch::keep_only(const std::set<std::string>& containers) {
  std::erase_if(entries_, [&](const auto& e) { return !containers.contains(e.first); });
}

pid_t pid_of_info(const std::string& info_json) {
  const auto info = nlohmann::json::parse(info_json, nullptr, false);
  const auto* pid = kube::find(info, "pid");
  return pid != nullptr && pid->is_number_integer() ? pid->get<pid_t>() : 0;
}

}  // namespace edgemesh::edged
