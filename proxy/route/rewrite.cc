#include "proxy/route/rewrite.h"

#include "core/http/h1_chars.h"
#include "proxy/route/format.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

namespace {

constexpr size_t kMaxPath = 64 << 10;

bool is_path(std::string_view path) {
  return !path.empty() && path.size() <= kMaxPath && path.front() == '/' &&
         http::all_of_class(path, http::kTarget);
}

// What of the path the match replaces.
size_t matched_length(std::string_view path, const model::PathMatch& match) {
  switch (match.kind) {
    case model::PathMatch::Kind::kPrefix:
    case model::PathMatch::Kind::kSegmentPrefix: return std::min(match.path.size(), path.size());
    case model::PathMatch::Kind::kExact:
    case model::PathMatch::Kind::kRegex: return path.size();
    case model::PathMatch::Kind::kConnect: break;
  }
  return 0;
}

void replace_prefix(std::string_view path, std::string_view prefix, const model::PathMatch& match,
                    std::string* out) {
  std::string_view rest = path.substr(matched_length(path, match));
  // "/a/" instead of "/b" of "/b/c" is "/a/c"; "" instead of "/b" of "/b" is "/".
  if (match.kind == model::PathMatch::Kind::kSegmentPrefix && prefix.ends_with('/') &&
      rest.starts_with('/'))
    rest.remove_prefix(1);
  out->append(prefix);
  out->append(rest);
  if (out->empty() || out->front() != '/') out->insert(out->begin(), '/');
}

Result<model::Regex> compile(const std::optional<model::RegexRewrite>& spec) {
  if (!spec) return model::Regex();
  EM_TRY(auto regex, model::Regex::make(spec->pattern));
  EM_TRY_VOID(regex.check_substitution(spec->substitution));
  return regex;
}

}  // namespace

std::string_view host_of(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos || authority.find(']', colon) != std::string_view::npos)
    return authority;
  return authority.substr(0, colon);
}

std::string_view port_of(std::string_view authority) {
  const size_t host = host_of(authority).size();
  return host == authority.size() ? std::string_view() : authority.substr(host + 1);
}

Result<std::unique_ptr<const Rewriter>> Rewriter::make(const model::Rewrite& spec,
                                                       const model::PathMatch& match) {
  if (spec.empty()) return std::unique_ptr<const Rewriter>();
  auto out = std::make_unique<Rewriter>();
  out->spec_ = &spec;
  out->match_ = &match;
  EM_TRY(out->regex_, compile(spec.regex));
  return std::unique_ptr<const Rewriter>(std::move(out));
}

bool Rewriter::apply(Head* head) const {
  if ((spec_->prefix || spec_->regex || !spec_->path.empty()) && head->method != "CONNECT") {
    const std::string_view path = path_of(head->path);
    const std::string_view query = head->path.substr(path.size());
    thread_local std::string text;
    text.clear();
    if (spec_->prefix) {
      replace_prefix(path, *spec_->prefix, *match_, &text);
    } else if (spec_->regex) {
      text = path;
      regex_.replace_all(&text, spec_->regex->substitution);
    } else {
      text = spec_->path;
    }
    text += query;
    if (!is_path(text)) return false;
    head->path = head->keep(text);
  }
  std::string_view host = spec_->host;
  if (!spec_->host_from_header.empty()) {
    const std::string_view value = head->get(spec_->host_from_header);
    if (!value.empty() && http::all_of_class(value, http::kHost)) host = value;
  }
  if (!host.empty()) {
    if (spec_->append_forwarded_host) head->add("x-forwarded-host", head->authority);
    head->authority = head->keep(host);
  }
  return true;
}

Result<std::unique_ptr<const Redirector>> Redirector::make(const model::Redirect& spec,
                                                           const model::PathMatch& match) {
  auto out = std::make_unique<Redirector>();
  out->spec_ = &spec;
  out->match_ = &match;
  EM_TRY(out->regex_, compile(spec.regex));
  return std::unique_ptr<const Redirector>(std::move(out));
}

bool Redirector::location(const Head& head, const Facts& facts, std::string* out) const {
  if (head.authority.empty()) return false;
  const std::string_view old_scheme = facts.tls ? "https" : "http";
  const std::string_view was = head.scheme.empty() ? old_scheme : head.scheme;
  const std::string_view scheme = spec_->scheme.empty() ? was : std::string_view(spec_->scheme);
  out->clear();
  out->append(scheme).append("://");
  out->append(spec_->host.empty() ? host_of(head.authority) : std::string_view(spec_->host));
  if (spec_->port != 0) {
    *out += ':';
    append_number(spec_->port, out);
  } else if (spec_->host.empty()) {
    // The default port of the old scheme makes no sense in the new one.
    const std::string_view port = port_of(head.authority);
    const bool is_default = port == (was == "https" ? "443" : "80");
    if (!port.empty() && !(scheme != was && is_default)) out->append(":").append(port);
  }
  const std::string_view path = path_of(head.path);
  const std::string_view query =
      spec_->strip_query ? std::string_view() : head.path.substr(path.size());
  std::string rest;
  if (spec_->prefix) {
    replace_prefix(path, *spec_->prefix, *match_, &rest);
  } else if (spec_->regex) {
    rest = path;
    regex_.replace_all(&rest, spec_->regex->substitution);
  } else {
    rest = spec_->path.empty() ? path : std::string_view(spec_->path);
  }
  if (spec_->path.find('?') == std::string::npos) rest += query;
  if (!is_path(rest)) return false;
  *out += rest;
  return true;
}

}  // namespace edgemesh::proxy
