// The hub's side of NodeLink for tests of the controllers: remembers what was sent.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "cloud/node_link.h"

namespace edgemesh::test {

class FakeLink final : public cloud::NodeLink {
 public:
  std::set<std::string> nodes;
  std::map<std::string, std::vector<channel::Message>> sent;
  std::set<std::string> paused;
  int wakes = 0;

  bool connected(const std::string& node) const override { return nodes.contains(node); }
  using NodeLink::send;
  bool send(const std::string& node, cloud::Frame frame) override {
    if (!nodes.contains(node)) return false;
    sent[node].push_back(*channel::decode(*frame, 64 << 20));
    return true;
  }
  void wake(const std::string&) override { ++wakes; }
  void wake_all() override { ++wakes; }
  void pause(const std::string& node) override { paused.insert(node); }
  void resume(const std::string& node) override { paused.erase(node); }
};

}  // namespace edgemesh::test
