#include "agent/edged/node/node_facts.h"

#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>

namespace edgemesh::edged {
namespace {

constexpr int64_t kLeastMemory = int64_t(100) << 20;

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  while (!line.empty() && (line.back() == '\0' || line.back() == ' ')) line.pop_back();
  return line;
}

int64_t number(std::string_view text) {
  int64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

void read_memory(const std::string& root, NodeFacts& out) {
  std::ifstream in(root + "/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    words >> name >> kib;
    if (name == "MemTotal:") out.memory_bytes = kib * 1024;
    if (name == "MemAvailable:") out.memory_free = kib * 1024;
  }
}

// PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
std::string os_name(const std::string& root) {
  std::ifstream in(root + "/etc/os-release");
  for (std::string line; std::getline(in, line);) {
    constexpr std::string_view kKey = "PRETTY_NAME=";
    if (!line.starts_with(kKey)) continue;
    std::string value = line.substr(kKey.size());
    std::erase(value, '"');
    return value;
  }
  return "";
}

// Threads that there are: "0.1 0.1 0.1 2/345 6789".
int64_t threads(const std::string& root) {
  std::istringstream words(first_line(root + "/proc/loadavg"));
  std::string word;
  for (int i = 0; i < 4; ++i) words >> word;
  const size_t slash = word.find('/');
  return slash == std::string::npos ? 0 : number(word.substr(slash + 1));
}

std::string arch_of(const std::string& machine) {
  if (machine == "x86_64") return "amd64";
  if (machine == "aarch64") return "arm64";
  if (machine.starts_with("arm")) return "arm";
  return machine;
}

}  // namespace

NodeFacts read_facts(const std::string& disk_path, const std::string& root) {
  NodeFacts out;
  out.cpu_milli = sysconf(_SC_NPROCESSORS_ONLN) * 1000;
  read_memory(root, out);
  struct statvfs disk {};
  if (statvfs(disk_path.c_str(), &disk) == 0) {
    out.disk_bytes = static_cast<int64_t>(disk.f_blocks * disk.f_frsize);
    out.disk_free = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
    out.inodes = static_cast<int64_t>(disk.f_files);
    out.inodes_free = static_cast<int64_t>(disk.f_favail);
  }
  out.pids = number(first_line(root + "/proc/sys/kernel/pid_max"));
  out.pids_used = threads(root);
  out.machine_id = first_line(root + "/etc/machine-id");
  out.system_uuid = first_line(root + "/sys/class/dmi/id/product_uuid");
  if (out.system_uuid.empty()) out.system_uuid = out.machine_id;
  out.boot_id = first_line(root + "/proc/sys/kernel/random/boot_id");
  out.os_image = os_name(root);
  struct utsname name {};
  if (uname(&name) == 0) {
    out.kernel = name.release;
    out.arch = arch_of(name.machine);
  }
  return out;
}

bool memory_short(const NodeFacts& facts) {
  return facts.memory_bytes > 0 && facts.memory_free < kLeastMemory;
}

bool disk_short(const NodeFacts& facts) {
  const bool bytes = facts.disk_bytes > 0 && facts.disk_free < facts.disk_bytes / 10;
  // Some file systems count no inodes.
  const bool inodes = facts.inodes > 0 && facts.inodes_free < facts.inodes / 20;
  return bytes || inodes;
}

bool pids_short(const NodeFacts& facts) {
  return facts.pids > 0 && facts.pids - facts.pids_used < facts.pids / 20;
}

}  // namespace edgemesh::edged
