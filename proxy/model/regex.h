// A regular expression in RE2's syntax: linear time, whatever the pattern and the text. Immutable
// and thread-safe. Once warm, matching allocates nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace re2 {
class RE2;
}

namespace edgemesh::proxy::model {

class Regex {
 public:
  static constexpr size_t kMaxPattern = 4096;
  // The error says what is wrong with the pattern.
  static Result<Regex> make(std::string_view pattern);
  Regex() = default;  // matches nothing
  bool matches(std::string_view text) const;  // the whole of it
  // Replaces every match; `substitution` has \0 to \9.
  void replace_all(std::string* text, std::string_view substitution) const;
  // An error when `substitution` names a group that the pattern has not.
  Result<> check_substitution(std::string_view substitution) const;
  explicit operator bool() const { return re_ != nullptr; }

 private:
  std::shared_ptr<const re2::RE2> re_;
};

}  // namespace edgemesh::proxy::model
