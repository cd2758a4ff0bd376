#include "kube/type_table.h"

#include <algorithm>
#include <charconv>
#include <map>

namespace edgemesh::kube {

namespace {

// What all kinds of core/v1 ... have is in the tables; kind and apiVersion are not.
constexpr std::string_view kTables =
#include "kube/types/admissionregistration.inc"
#include "kube/types/apiextensions.inc"
#include "kube/types/apps.inc"
#include "kube/types/authentication.inc"
#include "kube/types/authorization.inc"
#include "kube/types/autoscaling.inc"
#include "kube/types/batch.inc"
#include "kube/types/certificates.inc"
#include "kube/types/coordination.inc"
#include "kube/types/core.inc"
#include "kube/types/discovery.inc"
#include "kube/types/events.inc"
#include "kube/types/meta.inc"
#include "kube/types/networking.inc"
#include "kube/types/node.inc"
#include "kube/types/policy.inc"
#include "kube/types/rbac.inc"
#include "kube/types/scheduling.inc"
#include "kube/types/storage.inc"
    ;

std::string_view take(std::string_view* text, char until) {
  size_t at = text->find(until);
  std::string_view out = text->substr(0, at);
  text->remove_prefix(at == std::string_view::npos ? text->size() : at + 1);
  return out;
}

struct Table {
  std::map<std::string_view, TypeInfo> types;

  Table() {
    std::string_view rest = kTables;
    while (!rest.empty()) {
      std::string_view line = take(&rest, '\n');
      std::string_view name = take(&line, ' ');
      bool atomic = name.ends_with("!");
      if (atomic) name.remove_suffix(1);
      TypeInfo& type = types[name];
      type.name = name;
      type.atomic = atomic;
      while (!line.empty()) {
        std::string_view field = take(&line, ' ');
        if (!field.empty()) type.fields.push_back(read_field(field));
      }
    }
    for (auto& [name, type] : types) index(type);
  }

 private:
  // `types` is a map: what a pointer into it shows stays where it is.
  TypeField read_field(std::string_view text) {
    TypeField out;
    out.name = take(&text, ':');
    out.inlined = out.name == "~";
    std::string_view number = take(&text, ':');
    std::from_chars(number.data(), number.data() + number.size(), out.number);
    std::string_view form = take(&text, '/');
    if (form.starts_with("*")) {
      out.keeps_zero = true;
      form.remove_prefix(1);
    }
    if (form.starts_with("[]") || form.starts_with("{}")) {
      out.shape = form[0] == '[' ? TypeField::Shape::kList : TypeField::Shape::kMap;
      form.remove_prefix(2);
    }
    out.form = form.empty() ? 's' : form[0];
    if (out.form == '<') {
      std::string_view name = form.substr(1, form.size() - 2);
      out.type = &types.try_emplace(name).first->second;
    }
    while (!text.empty()) read_mark(take(&text, '/'), &out);
    return out;
  }

  static void read_mark(std::string_view mark, TypeField* out) {
    std::string_view value = mark.size() > 2 ? mark.substr(2) : std::string_view();
    switch (mark[0]) {
      case 's': out->set = true; break;
      case 'a': out->atomic = true; break;
      case 'm':
        out->merges = true;
        out->merge_key = value;
        break;
      case 'k':
        while (!value.empty()) out->map_keys.push_back(take(&value, ','));
        break;
      default: break;
    }
  }

  static void add_names(const TypeInfo& type, std::vector<const TypeField*>* out) {
    for (const TypeField& field : type.fields) {
      if (field.inlined && field.type != nullptr) {
        add_names(*field.type, out);
      } else {
        out->push_back(&field);
      }
    }
  }

  static void index(TypeInfo& type) {
    add_names(type, &type.by_name);
    std::sort(type.by_name.begin(), type.by_name.end(),
              [](const TypeField* a, const TypeField* b) { return a->name < b->name; });
    for (const TypeField& field : type.fields) type.by_number.push_back(&field);
    std::sort(type.by_number.begin(), type.by_number.end(),
              [](const TypeField* a, const TypeField* b) { return a->number < b->number; });
  }
};

const Table& table() {
  static const Table kTable;
  return kTable;
}

}  // namespace

const TypeField* TypeInfo::find(std::string_view field) const {
  auto it = std::lower_bound(by_name.begin(), by_name.end(), field,
                             [](const TypeField* a, std::string_view b) { return a->name < b; });
  return it != by_name.end() && (*it)->name == field ? *it : nullptr;
}

const TypeField* TypeInfo::find(uint32_t number) const {
  auto it = std::lower_bound(by_number.begin(), by_number.end(), number,
                             [](const TypeField* a, uint32_t b) { return a->number < b; });
  return it != by_number.end() && (*it)->number == number ? *it : nullptr;
}

std::string_view type_tables() {
  return kTables;
}

const TypeInfo* find_type(std::string_view name) {
  const auto& types = table().types;
  auto it = types.find(name);
  return it == types.end() ? nullptr : &it->second;
}

const TypeInfo* type_of_kind(std::string_view group, std::string_view version,
                             std::string_view kind) {
  // Options have the group and version of what they are sent to.
  if (kind == "DeleteOptions") return find_type("meta.DeleteOptions");
  if (version != "v1") return nullptr;
  if (group.empty()) return kind.find('.') == std::string_view::npos ? find_type(kind) : nullptr;
  bool ours = group.find('.') == std::string_view::npos || group.ends_with(".k8s.io");
  if (!ours) return nullptr;
  std::string name(group.substr(0, group.find('.')));
  return find_type(name.append(".").append(kind));
}

const TypeInfo* type_of_kind(std::string_view kind) {
  if (const TypeInfo* type = find_type(kind)) return type;
  for (const auto& [name, type] : table().types) {
    size_t dot = name.find('.');
    if (dot != std::string_view::npos && name.substr(dot + 1) == kind) return &type;
  }
  return nullptr;
}

}  // namespace edgemesh::kube
