#include "cloud/edge/object_ref.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>

namespace edgemesh::cloud {
namespace {

struct Word {
  std::string_view word;
  const kube::ResourceType* type;
};

const std::array<Word, 4> kWords{{{"pod", &kube::kPods},
                                  {"configmap", &kube::kConfigMaps},
                                  {"secret", &kube::kSecrets},
                                  {"node", &kube::kNodes}}};

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string wire_resource(const ObjectRef& ref) {
  std::string out = ref.ns.empty() ? "null" : ref.ns;
  out += '/';
  for (const Word& word : kWords) {
    if (*word.type == *ref.type) out += word.word;
  }
  out += '/';
  out += ref.name;
  return out;
}

const kube::ResourceType* type_of_word(std::string_view word) {
  for (const Word& known : kWords) {
    if (known.word == word) return known.type;
  }
  return nullptr;
}

const kube::ResourceType* type_of_kind(std::string_view kind) {
  for (const Word& known : kWords) {
    if (known.type->kind == kind) return known.type;
  }
  return nullptr;
}

bool at_least(std::string_view a, std::string_view b) {
  const auto left = number(a);
  const auto right = number(b);
  if (!left || !right) return a == b;
  return *left >= *right;
}

}  // namespace edgemesh::cloud
