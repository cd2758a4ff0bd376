#include "proxy/model/regex.h"

#include <re2/re2.h>

namespace edgemesh::proxy::model {

namespace {
constexpr int64_t kMaxMemory = 1 << 20;  // of one pattern: program and cached states
constexpr int kMaxProgram = 20'000;      // instructions; more would make matching slow
re2::StringPiece piece(std::string_view text) {
  return {text.data(), text.size()};
}
}  // namespace

Result<Regex> Regex::make(std::string_view pattern) {
  if (pattern.empty()) return fail(ErrorCode::kInvalidArgument, "an empty regex");
  if (pattern.size() > kMaxPattern)
    return fail(ErrorCode::kInvalidArgument, "a regex of more than {} bytes", kMaxPattern);
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxMemory);
  Regex out;
  auto re = std::make_shared<re2::RE2>(piece(pattern), options);
  if (!re->ok()) return fail(ErrorCode::kInvalidArgument, "regex '{}': {}", pattern, re->error());
  if (re->ProgramSize() > kMaxProgram)
    return fail(ErrorCode::kInvalidArgument, "regex '{}' is too large; use fewer repetitions",
                pattern);
  out.re_ = std::move(re);
  return out;
}

bool Regex::matches(std::string_view text) const {
  return re_ != nullptr &&
         re_->Match(piece(text), 0, text.size(), re2::RE2::ANCHOR_BOTH, nullptr, 0);
}

void Regex::replace_all(std::string* text, std::string_view substitution) const {
  if (re_ != nullptr) re2::RE2::GlobalReplace(text, *re_, piece(substitution));
}

Result<> Regex::check_substitution(std::string_view substitution) const {
  std::string error;
  if (re_ != nullptr && !re_->CheckRewriteString(piece(substitution), &error))
    return fail(ErrorCode::kInvalidArgument, "substitution '{}': {}", substitution, error);
  return {};
}

}  // namespace edgemesh::proxy::model
