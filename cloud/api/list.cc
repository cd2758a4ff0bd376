#include "cloud/api/list.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace edgemesh::cloud {

Result<Filter> make_filter(std::string_view ns, std::string_view label_selector,
                           std::string_view field_selector) {
  Filter out;
  out.ns = ns;
  EM_TRY(out.labels, kube::LabelSelector::parse(label_selector));
  EM_TRY(out.fields, kube::FieldSelector::parse(field_selector));
  return out;
}

std::string list_text(const ResourceInfo& resource, const ListResult& list) {
  size_t bytes = 256 + list.continue_token.size();
  for (const ObjectPtr& object : list.items) bytes += object->text.size() + 1;
  std::string out;
  out.reserve(bytes);
  out += fmt::format(R"({{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{}")",
                     resource.list_kind_name(), resource.type.api_version(), list.version);
  if (!list.continue_token.empty()) {
    out += R"(,"continue":)" + nlohmann::json(list.continue_token).dump();
  }
  if (list.remaining >= 0) out += fmt::format(R"(,"remainingItemCount":{})", list.remaining);
  out += R"(},"items":[)";
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ',';
    out += list.items[i]->text;
  }
  out += "]}";
  return out;
}

}  // namespace edgemesh::cloud
