// Adding, setting and removing of fields, as configured. Immutable and thread-safe; the model must
// outlive it.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/route.h"
#include "proxy/route/format.h"

namespace edgemesh::proxy {

class Mutations {
 public:
  // Null when there is nothing to do.
  static Result<std::unique_ptr<const Mutations>> make(const model::HeaderMutations& spec);
  // `head` is the request's or the response's; `facts` knows both where they exist.
  void apply(Head* head, const LogFacts& facts) const;

 private:
  const model::HeaderMutations* spec_ = nullptr;
  std::vector<Format> values_;  // of spec_->add
};
using MutationsPtr = std::unique_ptr<const Mutations>;

// Names that a mutation must not touch: they say where a message ends or belong to the connection.
bool is_protected_field(std::string_view lower_case_name);
// Whether a value may stand in a field: no control characters but the tab.
bool is_field_value(std::string_view value);
bool is_field_name(std::string_view name);

}  // namespace edgemesh::proxy
