// Label and field selectors of list and watch requests. I/O-free.
//
// Labels: "a=b,c!=d,e in (x,y),f notin (z),g,!h,i>3,j<5". Fields:
// "metadata.name=a,status.phase!=b".
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::kube {

// Sorted by key. Compact, for keeping beside each stored object.
using Pairs = std::vector<std::pair<std::string, std::string>>;
const std::string* find_pair(const Pairs& pairs, std::string_view key);

class LabelSelector {
 public:
  static Result<LabelSelector> parse(std::string_view text);
  bool matches(const Pairs& labels) const;
  bool empty() const { return terms_.empty(); }

 private:
  enum class Op { kIn, kNotIn, kExists, kAbsent, kGreater, kLess };
  struct Term {
    std::string key;
    Op op;
    std::vector<std::string> values;
  };
  static bool matches(const Term& term, const std::string* value);
  friend class LabelParser;
  std::vector<Term> terms_;
};

class FieldSelector {
 public:
  struct Term {
    std::string field;
    bool equal;
    std::string value;
  };
  static Result<FieldSelector> parse(std::string_view text);
  // A field that is absent compares as the empty string.
  bool matches(const Pairs& fields) const;
  bool empty() const { return terms_.empty(); }
  const std::vector<Term>& terms() const { return terms_; }

 private:
  std::vector<Term> terms_;
};

}  // namespace edgemesh::kube
