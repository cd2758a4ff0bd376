// Private to core/config: the tree of a parsed file.
#pragma once

#include <memory_resource>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/config/reader.h"

namespace edgemesh::config {

// All of a tree lies in the arena of its State, so that a large file leaves no holes in the heap.
struct Node {
  enum class Kind { kNull, kScalar, kList, kMapping };
  struct Entry {
    std::string_view key;
    int line;
    Node* value;
    bool taken = false;
  };
  explicit Node(std::pmr::memory_resource* arena) : items(arena), entries(arena), allowed(arena) {}

  Kind kind = Kind::kNull;
  int line = 0;  // from 1
  std::string_view scalar;
  bool quoted = false;
  bool free_keys = false;  // any key goes
  std::pmr::vector<Node*> items;
  std::pmr::vector<Entry> entries;
  // Keys that were asked for, in that order; some more than once.
  std::pmr::vector<std::string_view> allowed;
};

struct State {
  std::string name;
  std::pmr::monotonic_buffer_resource arena{64 << 10};
  Node top{&arena};
  struct Problem {
    int line;
    std::string text;
  };
  std::vector<Problem> problems;
};

// Builds the tree. The error has file and line.
Result<> parse_yaml(std::string_view text, const Limits& limits, State& state);

// An error's text on one line, whatever of the file is quoted in it.
std::string one_line(std::string text);

// The name in `names` that `wrong` was likely meant to be; empty when none is near.
std::string_view nearest(std::string_view wrong, const std::vector<std::string_view>& names);

}  // namespace edgemesh::config
