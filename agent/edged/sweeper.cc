#include "agent/edged/sweeper.h"

#include "agent/edged/spec/labels.h"
#include "core/base/log.h"

namespace edgemesh::edged {

Sweeper::Sweeper(io::Loop& loop, cri::RuntimeClient& runtime, agent::MetaModule& meta,
                 NodeParts& parts)
    : runtime_(runtime), meta_(meta), parts_(parts), timer_(loop, [this] { look(); }) {
  timer_.start(kFirst);
}

Sweeper::~Sweeper() {
  *alive_ = false;
}

void Sweeper::look() {
  timer_.start(kEvery);
  runtime_.list_pod_sandboxes(
      {}, [this, alive = alive_](Result<cri::pb::ListPodSandboxResponse> list) {
        if (!*alive) return;
        // Who does not know what there is removes nothing.
        if (!list) return;
        std::set<std::string> uids;
        for (const auto& sandbox : list->items()) {
          const auto it = sandbox.labels().find(kPodUidLabel);
          uids.insert(it != sandbox.labels().end() ? it->second : sandbox.metadata().uid());
        }
        bool readable = true;
        auto read = meta_.for_each("pod", [&](const agent::MetaKey&, std::string_view json) {
          auto pod = parse_pod(json);
          readable = readable && pod.has_value();
          if (pod) uids.insert(pod->uid);
        });
        if (read && readable) parts_.sweep(uids);
      });
}

}  // namespace edgemesh::edged
