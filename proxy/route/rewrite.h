// Rewriting of path and host, and the Location of a redirect. Immutable and thread-safe; the model
// must outlive it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "proxy/model/regex.h"
#include "proxy/model/route.h"
#include "proxy/route/facts.h"

namespace edgemesh::proxy {

class Rewriter {
 public:
  // Null when there is nothing to do. The prefix that is replaced is that of `match`.
  static Result<std::unique_ptr<const Rewriter>> make(const model::Rewrite& spec,
                                                      const model::PathMatch& match);
  // False: the result is no path (longer than 64 KiB, or with characters a path cannot have); the
  // head is unchanged. host_from_endpoint is the caller's, who knows it later.
  bool apply(Head* head) const;

 private:
  const model::Rewrite* spec_ = nullptr;
  const model::PathMatch* match_ = nullptr;
  model::Regex regex_;
};

class Redirector {
 public:
  static Result<std::unique_ptr<const Redirector>> make(const model::Redirect& spec,
                                                        const model::PathMatch& match);
  // The Location, into `out`. False: it cannot be built (no authority, or a bad path).
  bool location(const Head& head, const Facts& facts, std::string* out) const;
  int status() const { return spec_->status; }

 private:
  const model::Redirect* spec_ = nullptr;
  const model::PathMatch* match_ = nullptr;
  model::Regex regex_;
};

// The authority's parts: "[::1]:80" -> "[::1]", "80".
std::string_view host_of(std::string_view authority);
std::string_view port_of(std::string_view authority);  // digits; empty: none

}  // namespace edgemesh::proxy
