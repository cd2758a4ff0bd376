#include "proxy/route/mutations.h"

#include <algorithm>

#include "core/http/h1_chars.h"

namespace edgemesh::proxy {

bool is_protected_field(std::string_view name) {
  constexpr std::string_view kNames[] = {"content-length",   "transfer-encoding",
                                         "connection",       "keep-alive",
                                         "upgrade",          "te",
                                         "proxy-connection", "trailer"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool is_field_value(std::string_view value) {
  return http::all_of_class(value, http::kValue);
}

bool is_field_name(std::string_view name) {
  return !name.empty() && http::all_of_class(name, http::kToken);
}

Result<MutationsPtr> Mutations::make(const model::HeaderMutations& spec) {
  if (spec.empty()) return MutationsPtr();
  auto out = std::make_unique<Mutations>();
  out->spec_ = &spec;
  for (const auto& name : spec.remove)
    if (is_protected_field(name) || name.starts_with(':') || name == "host")
      return fail(ErrorCode::kInvalidArgument, "field '{}' cannot be removed", name);
  for (const auto& add : spec.add) {
    const bool host = add.name == "host" || add.name == ":authority";
    if (is_protected_field(add.name) || (!host && !is_field_name(add.name)))
      return fail(ErrorCode::kInvalidArgument, "field '{}' cannot be set", add.name);
    EM_TRY(Format value, Format::make(add.value));
    out->values_.push_back(std::move(value));
  }
  return MutationsPtr(std::move(out));
}

void Mutations::apply(Head* head, const LogFacts& facts) const {
  using Mode = model::HeaderValue::Mode;
  for (const auto& name : spec_->remove) head->remove(name);
  thread_local std::string text;
  for (size_t i = 0; i < values_.size(); ++i) {
    const model::HeaderValue& add = spec_->add[i];
    std::string_view value = values_[i].literal();
    if (!values_[i].plain()) {
      text.clear();
      values_[i].write(facts, &text, "");
      value = text;
    }
    // What a peer said comes in through a format, too.
    if ((value.empty() && !add.keep_empty) || !is_field_value(value)) continue;
    if (add.name == "host" || add.name == ":authority") {
      if (add.mode != Mode::kAddIfAbsent || head->authority.empty())
        head->authority = head->keep(value);
      continue;
    }
    const bool there = add.mode != Mode::kAppend && head->has(add.name);
    if (add.mode == Mode::kAddIfAbsent && there) continue;
    if (add.mode == Mode::kReplaceIfExists && !there) continue;
    if (there) head->remove(add.name);
    head->add(add.name, value);
  }
}

}  // namespace edgemesh::proxy
