#include "proxy/route/matchers.h"

#include <algorithm>
#include <charconv>

#include "core/http/message.h"

namespace edgemesh::proxy {

using http::equals_ignore_case;

namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool contains(std::string_view text, std::string_view part, bool ignore_case) {
  if (!ignore_case) return text.find(part) != std::string_view::npos;
  return std::search(text.begin(), text.end(), part.begin(), part.end(),
                     [](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

bool pseudo_field(const Head& head, std::string_view name, std::string_view* value) {
  if (name == ":authority" || equals_ignore_case(name, "host"))
    *value = head.authority;
  else if (name == ":path")
    *value = head.path;
  else if (name == ":method")
    *value = head.method;
  else if (name == ":scheme")
    *value = head.scheme;
  else
    return false;
  return true;
}

}  // namespace

std::string to_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

bool starts_with(std::string_view text, std::string_view prefix, bool ignore_case) {
  if (!ignore_case) return text.starts_with(prefix);
  return text.size() >= prefix.size() && equals_ignore_case(text.substr(0, prefix.size()), prefix);
}

std::string_view path_of(std::string_view target) {
  return target.substr(0, target.find_first_of("?#"));
}

std::string_view query_of(std::string_view target) {
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  return mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
}

bool find_query(std::string_view query, std::string_view name, std::string_view* value) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view part = query.substr(0, end);
    const size_t equals = part.find('=');
    if (part.substr(0, equals) == name) {
      *value = equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1);
      return true;
    }
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return false;
}

bool find_cookie(const Head& head, std::string_view name, std::string_view* value) {
  for (const FieldView& field : head.fields()) {
    if (!equals_ignore_case(field.name, "cookie")) continue;
    std::string_view left = field.value;
    while (!left.empty()) {
      const size_t end = left.find(';');
      std::string_view part = left.substr(0, end);
      while (part.starts_with(' ') || part.starts_with('\t')) part.remove_prefix(1);
      while (part.ends_with(' ') || part.ends_with('\t')) part.remove_suffix(1);
      if (part.size() > name.size() && part.starts_with(name) && part[name.size()] == '=') {
        *value = part.substr(name.size() + 1);
        if (value->size() >= 2 && value->starts_with('"') && value->ends_with('"'))
          *value = value->substr(1, value->size() - 2);
        return true;
      }
      if (end == std::string_view::npos) break;
      left.remove_prefix(end + 1);
    }
  }
  return false;
}

bool field_value(const Head& head, std::string_view name, std::string_view* value) {
  if (pseudo_field(head, name, value)) return !value->empty();
  size_t found = 0;
  for (const FieldView& field : head.fields()) {
    if (field.name.size() != name.size() || !equals_ignore_case(field.name, name)) continue;
    if (found++ == 0) *value = field.value;
  }
  if (found < 2) return found == 1;
  thread_local std::string joined;  // keeps its memory: no allocation in the steady state
  joined.clear();
  for (const FieldView& field : head.fields()) {
    if (!equals_ignore_case(field.name, name)) continue;
    joined += field.value;
    if (--found > 0) joined += ',';
  }
  *value = joined;
  return true;
}

bool is_grpc(const Head& head) {
  const std::string_view type = head.get("content-type");
  constexpr std::string_view kGrpc = "application/grpc";
  return type.starts_with(kGrpc) &&
         (type.size() == kGrpc.size() || type[kGrpc.size()] == '+' || type[kGrpc.size()] == ';');
}

Result<TextMatcher> TextMatcher::make(const model::TextMatch& spec) {
  TextMatcher out;
  out.spec_ = &spec;
  if (spec.kind == model::TextMatch::Kind::kRegex) {
    EM_TRY(out.regex_, model::Regex::make(spec.ignore_case ? "(?i)" + spec.text : spec.text));
  }
  return out;
}

bool TextMatcher::matches(std::string_view value) const {
  if (spec_ == nullptr) return false;
  const std::string_view text = spec_->text;
  switch (spec_->kind) {
    case model::TextMatch::Kind::kExact:
      return spec_->ignore_case ? equals_ignore_case(value, text) : value == text;
    case model::TextMatch::Kind::kPrefix: return starts_with(value, text, spec_->ignore_case);
    case model::TextMatch::Kind::kSuffix:
      if (value.size() < text.size()) return false;
      return starts_with(value.substr(value.size() - text.size()), text, spec_->ignore_case);
    case model::TextMatch::Kind::kContains: return contains(value, text, spec_->ignore_case);
    case model::TextMatch::Kind::kRegex: return regex_.matches(value);
  }
  return false;
}

Result<std::vector<TextMatcher>> compile_texts(const std::vector<model::TextMatch>& specs) {
  std::vector<TextMatcher> out;
  out.reserve(specs.size());
  for (const auto& spec : specs) {
    EM_TRY(auto matcher, TextMatcher::make(spec));
    out.push_back(std::move(matcher));
  }
  return out;
}

bool any_matches(const std::vector<TextMatcher>& matchers, std::string_view value) {
  return std::any_of(matchers.begin(), matchers.end(),
                     [value](const TextMatcher& m) { return m.matches(value); });
}

Result<FieldMatcher> FieldMatcher::make(const model::FieldMatch& spec) {
  FieldMatcher out;
  out.spec_ = &spec;
  if (spec.kind == model::FieldMatch::Kind::kText) {
    EM_TRY(out.text_, TextMatcher::make(spec.text));
  }
  return out;
}

bool FieldMatcher::matches_value(bool there, std::string_view value) const {
  if (spec_->kind == model::FieldMatch::Kind::kPresent) return there != spec_->invert;
  if (!there) {
    if (!spec_->absent_as_empty) return false;
    value = {};
  }
  bool matched = false;
  if (spec_->kind == model::FieldMatch::Kind::kText) {
    matched = text_.matches(value);
  } else {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    matched = !value.empty() && error == std::errc() && end == value.data() + value.size() &&
              number >= spec_->first && number < spec_->last;
  }
  return matched != spec_->invert;
}

bool FieldMatcher::matches(const Head& head) const {
  std::string_view value;
  const bool there = field_value(head, spec_->name, &value);
  return matches_value(there, value);
}

bool FieldMatcher::matches_query(std::string_view query) const {
  std::string_view value;
  const bool there = find_query(query, spec_->name, &value);
  return matches_value(there, value);
}

Result<std::vector<FieldMatcher>> compile_fields(const std::vector<model::FieldMatch>& specs) {
  std::vector<FieldMatcher> out;
  out.reserve(specs.size());
  for (const auto& spec : specs) {
    EM_TRY(auto matcher, FieldMatcher::make(spec));
    out.push_back(std::move(matcher));
  }
  return out;
}

bool all_match(const std::vector<FieldMatcher>& matchers, const Head& head) {
  return std::all_of(matchers.begin(), matchers.end(),
                     [&head](const FieldMatcher& m) { return m.matches(head); });
}

bool any_matches(const std::vector<FieldMatcher>& matchers, const Head& head) {
  return std::any_of(matchers.begin(), matchers.end(),
                     [&head](const FieldMatcher& m) { return m.matches(head); });
}

Result<RequestMatcher> RequestMatcher::make(const model::RouteMatch& spec) {
  RequestMatcher out;
  out.spec_ = &spec;
  if (spec.path.kind == model::PathMatch::Kind::kRegex) {
    const auto& pattern = spec.path.path;
    EM_TRY(out.path_, model::Regex::make(spec.path.ignore_case ? "(?i)" + pattern : pattern));
  }
  EM_TRY(out.headers_, compile_fields(spec.headers));
  EM_TRY(out.query_, compile_fields(spec.query));
  return out;
}

bool RequestMatcher::matches_path(const Head& head) const {
  const model::PathMatch& path = spec_->path;
  if (path.kind == model::PathMatch::Kind::kConnect) return head.method == "CONNECT";
  const std::string_view asked = path_of(head.path);
  switch (path.kind) {
    case model::PathMatch::Kind::kPrefix:
      // A CONNECT request has no path.
      return head.method != "CONNECT" && starts_with(asked, path.path, path.ignore_case);
    case model::PathMatch::Kind::kExact:
      return path.ignore_case ? equals_ignore_case(asked, path.path) : asked == path.path;
    case model::PathMatch::Kind::kSegmentPrefix:
      return starts_with(asked, path.path, path.ignore_case) &&
             (asked.size() == path.path.size() || asked[path.path.size()] == '/');
    case model::PathMatch::Kind::kRegex: return path_.matches(asked);
    case model::PathMatch::Kind::kConnect: break;
  }
  return false;
}

bool RequestMatcher::matches_source(const Facts& facts) const {
  if (!spec_->source_ips.empty() &&
      std::none_of(spec_->source_ips.begin(), spec_->source_ips.end(),
                   [&](const Cidr& cidr) { return cidr.contains(facts.client); }))
    return false;
  if (spec_->source_labels.empty()) return true;
  if (facts.source_labels == nullptr) return false;
  return std::all_of(
      spec_->source_labels.begin(), spec_->source_labels.end(), [&](const model::Label& label) {
        return std::binary_search(facts.source_labels->begin(), facts.source_labels->end(), label);
      });
}

bool RequestMatcher::matches(const Head& head, const Facts& facts) const {
  if (!matches_path(head)) return false;
  if (!spec_->methods.empty() &&
      std::find(spec_->methods.begin(), spec_->methods.end(), head.method) == spec_->methods.end())
    return false;
  if (spec_->grpc && !is_grpc(head)) return false;
  if (!all_match(headers_, head)) return false;
  if (!query_.empty()) {
    const std::string_view query = query_of(head.path);
    for (const FieldMatcher& matcher : query_)
      if (!matcher.matches_query(query)) return false;
  }
  if (!matches_source(facts)) return false;
  return spec_->per_million >= model::kAlways || facts.random % model::kAlways < spec_->per_million;
}

}  // namespace edgemesh::proxy
