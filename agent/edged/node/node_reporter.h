// NodeReporter: keeps the status of this Node true in the cloud (KubeEdge's message
// `default/nodestatus/<node>`, update, {"UID","Status","ExtendResources"}): looks at the machine
// every ten seconds, sends when something changed that others go by, and every five minutes. When
// the cloud's Node says something else (it was made anew) it is sent again.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/cri/runtime_client.h"
#include "agent/edged/node/node_status.h"
#include "agent/meta/meta_module.h"
#include "agent/meta/outbox.h"

namespace edgemesh::edged {

class NodeReporter final : public agent::MetaSink {
 public:
  static constexpr Duration kLookEvery = std::chrono::seconds(10);
  static constexpr Duration kSendEvery = std::chrono::minutes(5);
  // A pressure is believed to be over after it was gone for this long.
  static constexpr Duration kPressureHolds = std::chrono::minutes(5);

  // A cloud that keeps saying something else is left in peace.
  static constexpr int kMostCorrections = 6;

  using Facts = std::function<NodeFacts()>;
  using OnImages = std::function<void(const cri::pb::ListImagesResponse&)>;
  // All borrowed.
  NodeReporter(io::Loop& loop, cri::RuntimeClient& runtime, agent::Outbox& outbox, std::string node,
               Facts facts, OnImages on_images = {});
  ~NodeReporter() override;

  // From here on it looks and sends; the outbox is started in the same turn of the loop.
  void on_objects_loaded() override;
  void on_object(const agent::MetaKey& key, std::string_view json) override;
  void on_object_gone(const agent::MetaKey&, const std::string&) override {}

 private:
  struct Pressure {
    bool holds = false;
    TimePoint seen{};
  };

  void look();
  void ask_runtime();
  void report();
  static bool holds(Pressure& pressure, bool now, TimePoint at);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  agent::Outbox& outbox_;
  std::string node_;
  Facts facts_;
  OnImages on_images_;  // each time they are listed
  io::Timer timer_;
  std::string uid_;
  bool asking_ = false;
  std::string version_;
  std::vector<NodeImage> images_;
  Pressure memory_, disk_, pids_;
  TimePoint sent_at_{};
  bool sent_ = false;
  int corrections_ = 0;                     // in a row
  std::unique_ptr<nlohmann::json> status_;  // as sent last
  std::unique_ptr<nlohmann::json> cloud_;   // the cloud's; null: not known
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
