// What this machine is and how much of it is free, from /proc, /etc and the file system. Blocking
// for reads of small kernel files. Thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace edgemesh::edged {

struct NodeFacts {
  int64_t cpu_milli = 0;
  int64_t memory_bytes = 0, memory_free = 0;  // free: without swapping
  // Of the file system that pods' data is on.
  int64_t disk_bytes = 0, disk_free = 0, inodes = 0, inodes_free = 0;
  int64_t pids = 0, pids_used = 0;
  std::string machine_id, system_uuid, boot_id, kernel, os_image, arch;
};

// `root` is put before every path of a file that is read: "" but in tests.
NodeFacts read_facts(const std::string& disk_path, const std::string& root = "");

// One pressure at a time; kubelet's default thresholds.
bool memory_short(const NodeFacts& facts);
bool disk_short(const NodeFacts& facts);
bool pids_short(const NodeFacts& facts);

}  // namespace edgemesh::edged
