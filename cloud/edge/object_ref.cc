#include "cloud/edge/object_ref.h"

#include <array>

#include "core/channel/resource.h"

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

}  // namespace

std::string ObjectRef::resource() const {
  for (const Word& word : kWords) {
    if (*word.type == *type) return channel::ResourceName{std::string(word.word), ns, name}.text();
  }
  return "";  // none of those that go to nodes
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

}  // namespace edgemesh::cloud
