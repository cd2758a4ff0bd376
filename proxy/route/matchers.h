// Compiled forms of model/match.h. Immutable and thread-safe; they own copies of nothing: the model
// they were made from must outlive them. Matching allocates nothing.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/http/head.h"
#include "proxy/model/match.h"
#include "proxy/model/regex.h"
#include "proxy/route/facts.h"

namespace edgemesh::proxy {

class TextMatcher {
 public:
  static Result<TextMatcher> make(const model::TextMatch& spec);
  bool matches(std::string_view value) const;

 private:
  const model::TextMatch* spec_ = nullptr;
  model::Regex regex_;
};

Result<std::vector<TextMatcher>> compile_texts(const std::vector<model::TextMatch>& specs);
bool any_matches(const std::vector<TextMatcher>& matchers, std::string_view value);

class FieldMatcher {
 public:
  static Result<FieldMatcher> make(const model::FieldMatch& spec);
  bool matches(const Head& head) const;              // a field, or ":path" and the like
  bool matches_query(std::string_view query) const;  // without '?'
  const model::FieldMatch& spec() const { return *spec_; }

 private:
  bool matches_value(bool there, std::string_view value) const;
  const model::FieldMatch* spec_ = nullptr;
  TextMatcher text_;
};

Result<std::vector<FieldMatcher>> compile_fields(const std::vector<model::FieldMatch>& specs);
bool all_match(const std::vector<FieldMatcher>& matchers, const Head& head);
bool any_matches(const std::vector<FieldMatcher>& matchers, const Head& head);

class RequestMatcher {
 public:
  static Result<RequestMatcher> make(const model::RouteMatch& spec);
  bool matches(const Head& head, const Facts& facts) const;
  const model::RouteMatch& spec() const { return *spec_; }

 private:
  bool matches_path(const Head& head) const;
  bool matches_source(const Facts& facts) const;
  const model::RouteMatch* spec_ = nullptr;
  model::Regex path_;
  std::vector<FieldMatcher> headers_, query_;
};

// "/a?b" -> "/a"; a fragment goes, too.
std::string_view path_of(std::string_view target);
// "/a?b" -> "b".
std::string_view query_of(std::string_view target);
// The raw value of a query parameter; false: there is none.
bool find_query(std::string_view query, std::string_view name, std::string_view* value);
// The value of a cookie.
bool find_cookie(const Head& head, std::string_view name, std::string_view* value);
// All fields of that name as one value, joined by ','; ":authority", ":path", ":method", ":scheme"
// and "host" are names, too. False: there is none. The view is valid until the next call in this
// thread, or as long as the head.
bool field_value(const Head& head, std::string_view name, std::string_view* value);
bool starts_with(std::string_view text, std::string_view prefix, bool ignore_case);
std::string to_lower(std::string_view text);
bool is_grpc(const Head& head);  // content-type application/grpc or application/grpc+x

}  // namespace edgemesh::proxy
