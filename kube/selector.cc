#include "kube/selector.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace edgemesh::kube {

const std::string* find_pair(const Pairs& pairs, std::string_view key) {
  auto it = std::lower_bound(pairs.begin(), pairs.end(), key,
                             [](const auto& pair, std::string_view k) { return pair.first < k; });
  return it != pairs.end() && it->first == key ? &it->second : nullptr;
}

namespace {

std::optional<int64_t> to_int(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

class LabelParser {
 public:
  explicit LabelParser(std::string_view text) : text_(text), rest_(text) {}

  Result<LabelSelector> parse() {
    LabelSelector out;
    skip_space();
    while (!rest_.empty()) {
      EM_TRY(auto term, parse_term());
      out.terms_.push_back(std::move(term));
      skip_space();
      if (rest_.empty()) break;
      if (!take(",")) return bad("want ','");
      skip_space();
      if (rest_.empty()) return bad("want a term after ','");
    }
    return out;
  }

 private:
  using Term = LabelSelector::Term;
  using Op = LabelSelector::Op;

  Result<Term> parse_term() {
    if (take("!")) {
      skip_space();
      std::string key = word();
      if (key.empty()) return bad("want a key after '!'");
      return Term{std::move(key), Op::kAbsent, {}};
    }
    std::string key = word();
    if (key.empty()) return bad("want a key");
    skip_space();
    if (take("!=")) return Term{std::move(key), Op::kNotIn, {value()}};
    if (take("==") || take("=")) return Term{std::move(key), Op::kIn, {value()}};
    if (take(">")) return compare(std::move(key), Op::kGreater);
    if (take("<")) return compare(std::move(key), Op::kLess);
    std::string_view before = rest_;
    std::string op = word();
    if (op.empty()) return Term{std::move(key), Op::kExists, {}};
    if (op != "in" && op != "notin") {
      rest_ = before;
      return bad("want =, ==, !=, in, notin, > or <");
    }
    return set_term(std::move(key), op == "in" ? Op::kIn : Op::kNotIn);
  }

  Result<Term> compare(std::string key, Op op) {
    std::string number = value();
    if (!to_int(number)) return bad("want an integer");
    return Term{std::move(key), op, {std::move(number)}};
  }

  Result<Term> set_term(std::string key, Op op) {
    skip_space();
    if (!take("(")) return bad("want '('");
    Term term{std::move(key), op, {}};
    while (true) {
      term.values.push_back(value());
      skip_space();
      if (take(")")) return term;
      if (!take(",")) return bad("want ',' or ')'");
    }
  }

  std::string value() {
    skip_space();
    return word();
  }

  std::string word() {
    size_t n = 0;
    while (n < rest_.size() &&
           std::string_view(" ,()=!<>").find(rest_[n]) == std::string_view::npos) {
      ++n;
    }
    std::string out(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return out;
  }

  bool take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void skip_space() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }
  tl::unexpected<Error> bad(std::string_view want) const {
    return fail(ErrorCode::kInvalidArgument, "label selector '{}': {} at character {}", text_, want,
                text_.size() - rest_.size() + 1);
  }

  std::string_view text_;
  std::string_view rest_;
};

Result<LabelSelector> LabelSelector::parse(std::string_view text) {
  return LabelParser(text).parse();
}

bool LabelSelector::matches(const Term& term, const std::string* value) {
  auto listed = [&] {
    return std::find(term.values.begin(), term.values.end(), *value) != term.values.end();
  };
  switch (term.op) {
    case Op::kIn: return value != nullptr && listed();
    case Op::kNotIn: return value == nullptr || !listed();
    case Op::kExists: return value != nullptr;
    case Op::kAbsent: return value == nullptr;
    case Op::kGreater:
    case Op::kLess: {
      if (value == nullptr) return false;
      auto have = to_int(*value);
      auto want = to_int(term.values[0]);
      if (!have || !want) return false;
      return term.op == Op::kGreater ? *have > *want : *have < *want;
    }
  }
  return false;
}

bool LabelSelector::matches(const Pairs& labels) const {
  return std::all_of(terms_.begin(), terms_.end(),
                     [&](const Term& term) { return matches(term, find_pair(labels, term.key)); });
}

Result<FieldSelector> FieldSelector::parse(std::string_view text) {
  FieldSelector out;
  std::string_view rest = text;
  while (!trim(rest).empty()) {
    size_t comma = rest.find(',');
    std::string_view term = trim(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    if (term.empty()) continue;
    size_t at = term.find_first_of("=!");
    bool equal = at != std::string_view::npos && term[at] == '=';
    std::string_view op = "=";
    if (at != std::string_view::npos && term.substr(at).starts_with("==")) op = "==";
    if (at != std::string_view::npos && term.substr(at).starts_with("!=")) op = "!=";
    if (at == std::string_view::npos || at == 0 || (!equal && op != "!=")) {
      return fail(ErrorCode::kInvalidArgument,
                  "field selector '{}': '{}' is not like field=value or field!=value", text, term);
    }
    out.terms_.push_back({std::string(trim(term.substr(0, at))), equal,
                          std::string(trim(term.substr(at + op.size())))});
  }
  return out;
}

bool FieldSelector::matches(const Pairs& fields) const {
  return std::all_of(terms_.begin(), terms_.end(), [&](const Term& term) {
    const std::string* value = find_pair(fields, term.field);
    return (value != nullptr ? *value == term.value : term.value.empty()) == term.equal;
  });
}

}  // namespace edgemesh::kube
