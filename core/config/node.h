// Private to core/config: the tree of a parsed file.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::config {

struct Node {
  enum class Kind { kNull, kScalar, kList, kMapping };
  struct Entry {
    std::string key;
    int line;
    std::unique_ptr<Node> value;
    bool taken = false;
  };

  Kind kind = Kind::kNull;
  int line = 0;  // from 1
  std::string scalar;
  bool quoted = false;
  std::vector<std::unique_ptr<Node>> items;
  std::vector<Entry> entries;
  std::vector<std::string> allowed;  // keys that were asked for, in that order
  bool free_keys = false;            // any key goes
};

struct State {
  std::string name;
  Node top;
  struct Problem {
    int line;
    std::string text;
  };
  std::vector<Problem> problems;
};

// Builds the tree. The error has file and line.
Result<> parse_yaml(std::string_view text, State& state);

// An error's text on one line, whatever of the file is quoted in it.
std::string one_line(std::string text);

// The name in `names` that `wrong` was likely meant to be; empty when none is near.
std::string_view nearest(std::string_view wrong, const std::vector<std::string>& names);

}  // namespace edgemesh::config
