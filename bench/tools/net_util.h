// Small helpers of the load tools: sockets, epoll, time, numbers of a process. Raw calls on
// purpose: the tools must cost less than what they measure.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace edgemesh::bench {

// The first request of every connection begins with this; it tells the backend what to do.
struct Hello {
  char magic[4] = {'E', 'M', 'B', '1'};
  // 'm': answer each request; 's': answer one and close; 'u': take bytes; 'd': send bytes; 'e':
  // echo
  char work = 'm';
  char pad[3] = {};
  uint32_t request = 0;  // bytes of a request, this header included
  uint32_t reply = 0;
};

[[noreturn]] inline void die(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

// --name value pairs and lone --flags.
inline std::map<std::string, std::string> parse_args(int argc, char** argv) {
  std::map<std::string, std::string> args;
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i];
    if (!name.starts_with("--")) {
      std::fprintf(stderr, "unexpected argument '%s' (see --help)\n", argv[i]);
      std::exit(2);
    }
    bool value = i + 1 < argc && std::strncmp(argv[i + 1], "--", 2) != 0;
    args[name.substr(2)] = value ? argv[++i] : "";
  }
  return args;
}

struct Address {
  sockaddr_storage storage{};
  socklen_t len = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  // "1.2.3.4:80" or "[::1]:80"
  static Address parse(const std::string& text) {
    Address address;
    size_t colon = text.rfind(':');
    std::string host = text.substr(0, colon);
    auto port = htons(static_cast<uint16_t>(std::atoi(text.c_str() + colon + 1)));
    if (host.starts_with('[')) {
      auto* sa = reinterpret_cast<sockaddr_in6*>(&address.storage);
      sa->sin6_family = AF_INET6;
      sa->sin6_port = port;
      inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &sa->sin6_addr);
      address.len = sizeof *sa;
    } else {
      auto* sa = reinterpret_cast<sockaddr_in*>(&address.storage);
      sa->sin_family = AF_INET;
      sa->sin_port = port;
      if (colon == std::string::npos || inet_pton(AF_INET, host.c_str(), &sa->sin_addr) != 1) {
        std::fprintf(stderr, "'%s' is no address (want 1.2.3.4:80)\n", text.c_str());
        std::exit(2);
      }
      address.len = sizeof *sa;
    }
    return address;
  }
};

inline void set_no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Nanoseconds of CPU that all threads of a process have used.
inline uint64_t cpu_ns(int pid) {
  uint64_t sum = 0;
  std::error_code ec;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", ec)) {
    std::ifstream file(task.path() / "schedstat");
    uint64_t ns = 0;
    if (file >> ns) sum += ns;
  }
  return sum;
}

// User memory of a process in bytes: what is private to it, swapped or not.
inline uint64_t private_bytes(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string line;
  uint64_t sum = 0;
  while (std::getline(file, line)) {
    char name[64];
    unsigned long long kb = 0;
    if (std::sscanf(line.c_str(), "%63[^:]: %llu", name, &kb) != 2) continue;
    std::string key = name;
    if (key == "Private_Dirty" || key == "Private_Clean" || key == "Swap") sum += kb * 1024;
  }
  return sum;
}

}  // namespace edgemesh::bench
