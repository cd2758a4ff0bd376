// The agent's hub module, in memory: keeps what would go to the cloud.
#pragma once

#include <string_view>
#include <vector>

#include "agent/hub_client.h"
#include "core/bus/bus.h"

namespace edgemesh::test {

class FakeHub final : public bus::Module {
 public:
  std::string_view name() const override { return agent::kHubModule; }
  std::string_view group() const override { return "hub"; }
  Result<> start(bus::Bus&) override { return {}; }
  void stop() override {}
  void on_message(bus::Message message) override { sent.push_back(std::move(message)); }
  std::vector<bus::Message> sent;
};

}  // namespace edgemesh::test
