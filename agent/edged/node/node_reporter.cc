#include "agent/edged/node/node_reporter.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::edged {

using Json = nlohmann::json;

NodeReporter::NodeReporter(io::Loop& loop, cri::RuntimeClient& runtime, agent::Outbox& outbox,
                           std::string node, Facts facts, OnImages on_images)
    : loop_(loop),
      runtime_(runtime),
      outbox_(outbox),
      node_(std::move(node)),
      facts_(std::move(facts)),
      on_images_(std::move(on_images)),
      timer_(loop, [this] { look(); }) {}

NodeReporter::~NodeReporter() {
  *alive_ = false;
}

void NodeReporter::on_objects_loaded() {
  timer_.start_repeating(kLookEvery);
  look();
}

void NodeReporter::on_object(const agent::MetaKey& key, std::string_view json) {
  if (key.kind != "node" || key.name != node_) return;
  const Json object = Json::parse(json, nullptr, false);
  uid_ = kube::text_at(object, "metadata", "uid");
  const Json* status = kube::find(object, "status");
  cloud_ = std::make_unique<Json>(status != nullptr ? *status : Json::object());
}

void NodeReporter::look() {
  if (std::exchange(asking_, true)) return;
  runtime_.version([this, alive = alive_](Result<cri::pb::VersionResponse> version) {
    if (!*alive) return;
    if (!version) {
      // What it was stays: it is back in a moment, or every pod says so.
      asking_ = false;
      return report();
    }
    version_ = version->runtime_name() + "://" + version->runtime_version();
    ask_runtime();
  });
}

void NodeReporter::ask_runtime() {
  runtime_.list_images([this, alive = alive_](Result<cri::pb::ListImagesResponse> list) {
    if (!*alive) return;
    asking_ = false;
    if (list) {
      if (on_images_) on_images_(*list);
      images_.clear();
      for (const auto& image : list->images()) {
        NodeImage one{{}, static_cast<int64_t>(image.size())};
        for (const auto& name : image.repo_digests()) one.names.push_back(name);
        for (const auto& name : image.repo_tags()) one.names.push_back(name);
        images_.push_back(std::move(one));
      }
    }
    report();
  });
}

bool NodeReporter::holds(Pressure& pressure, bool now, TimePoint at) {
  if (now) {
    pressure = {true, at};
  } else if (pressure.holds && at - pressure.seen >= kPressureHolds) {
    pressure.holds = false;
  }
  return pressure.holds;
}

void NodeReporter::report() {
  const TimePoint now = loop_.now();
  const NodeFacts facts = facts_();
  NodeStatusInput in{.facts = facts, .runtime = version_, .images = images_};
  in.memory_pressure = holds(memory_, memory_short(facts), now);
  in.disk_pressure = holds(disk_, disk_short(facts), now);
  in.pid_pressure = holds(pids_, pids_short(facts), now);
  in.now_s =
      std::chrono::duration_cast<std::chrono::seconds>(loop_.clock().wall_now().time_since_epoch())
          .count();
  in.previous = status_.get();
  Json status = make_node_status(in);
  const bool news = !sent_ || !same_node_status(*status_, status);
  // Once in a round: what was sent may be on its way.
  const bool lost = cloud_ != nullptr && !same_node_status(*cloud_, status);
  if (!lost || news) corrections_ = 0;
  const bool correct = lost && corrections_ < kMostCorrections;
  if (!news && !correct && now - sent_at_ < kSendEvery) return;
  if (correct && !news) ++corrections_;
  const Json content{{"UID", uid_}, {"Status", status}, {"ExtendResources", Json::object()}};
  auto put = outbox_.put({.resource = "default/nodestatus/" + node_,
                          .operation = "update",
                          .content = kube::to_text(content)});
  if (!put) {
    EM_LOG(kWarn, "edged", "the node's status: {}", put.error().message);
    return;
  }
  status_ = std::make_unique<Json>(std::move(status));
  sent_ = true;
  sent_at_ = now;
}

}  // namespace edgemesh::edged
