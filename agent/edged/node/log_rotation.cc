#include "agent/edged/node/log_rotation.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <vector>

#include "agent/edged/spec/labels.h"
#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;

// Empty: not a container of ours.
std::string log_of(const std::string& root, const cri::pb::Container& container) {
  const auto label = [&](const char* key) {
    const auto it = container.labels().find(key);
    return it == container.labels().end() ? std::string() : it->second;
  };
  const std::string uid = label(kPodUidLabel), name = label(kContainerNameLabel);
  const std::string pod = label(kPodNamespaceLabel) + "_" + label(kPodNameLabel) + "_" + uid;
  if (uid.empty() || name.empty() || (pod + name).find('/') != std::string::npos) return "";
  return fmt::format("{}/{}/{}/{}.log", root, pod, name, container.metadata().attempt());
}

std::string stamp(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &parts);
  return text;
}

}  // namespace

LogRotation::LogRotation(io::Loop& loop, cri::RuntimeClient& runtime, Options options)
    : loop_(loop),
      runtime_(runtime),
      options_(std::move(options)),
      timer_(loop, [this] { look(); }) {}

LogRotation::~LogRotation() {
  *alive_ = false;
}

void LogRotation::look() {
  if (std::exchange(busy_, true)) return;
  cri::pb::ContainerFilter running;
  running.mutable_state()->set_state(cri::pb::CONTAINER_RUNNING);
  runtime_.list_containers(
      running, [this, alive = alive_](Result<cri::pb::ListContainersResponse> list) {
        if (!*alive) return;
        busy_ = false;
        if (!list) return;  // the runtime's absence is told elsewhere
        for (const auto& container : list->containers()) {
          const std::string path = log_of(options_.log_root, container);
          struct stat is {};
          if (path.empty() || stat(path.c_str(), &is) != 0 || is.st_size < options_.most_bytes)
            continue;
          rotate(container.id(), path);
        }
      });
}

void LogRotation::rotate(const std::string& container, const std::string& path) {
  const std::string aside = path + "." + stamp(loop_.clock().wall_now());
  if (rename(path.c_str(), aside.c_str()) != 0) {
    EM_LOG(kWarn, "edged", "{}", Error::from_errno("rename " + path, errno).message);
    return;
  }
  runtime_.reopen_container_log(container, [this, alive = alive_, path, aside](Result<> done) {
    if (!*alive) return;
    if (!done) {
      // It goes on writing to the file that it has open: that one keeps its name.
      EM_LOG(kWarn, "edged", "{}: {}", path, done.error().message);
      std::error_code error;
      if (!fs::exists(path, error)) fs::rename(aside, path, error);
      return;
    }
    drop_old(path);
  });
}

void LogRotation::drop_old(const std::string& path) const {
  const std::string start = fs::path(path).filename().string() + ".";
  std::vector<std::string> aside;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(path).parent_path(), error)) {
    if (entry.path().filename().string().starts_with(start)) aside.push_back(entry.path());
  }
  std::sort(aside.begin(), aside.end());  // by time
  while (aside.size() + 1 > std::max<size_t>(options_.most_files, 1)) {
    fs::remove(aside.front(), error);
    aside.erase(aside.begin());
  }
}

}  // namespace edgemesh::edged
