// The controllers on the embedded API, with nodes that run what is bound to them.
#pragma once

#include "cloud/api/embedded_client.h"
#include "cloud/controllers/controllers.h"
#include "cloud/controllers/types.h"
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud::controllers {

class ControllersTest : public ApiFixture {
 protected:
  void SetUp() override {
    ApiFixture::SetUp();
    client_ = make_embedded_client(*core_);
    begin(options());
  }
  // A test may have them otherwise.
  virtual ControllerOptions options() const { return {}; }
  // Also: again, as after a restart.
  void begin(const ControllerOptions& with) {
    controllers_.reset();
    controllers_ = std::make_unique<Controllers>(*loop_, *client_, with);
    controllers_->start();
    settle([&] { return controllers_->ready(); });
  }
  void TearDown() override {
    controllers_.reset();
    client_.reset();
    ApiFixture::TearDown();
  }
  json get(const kube::ResourceType& type, const std::string& name) {
    auto out = std::make_shared<std::optional<Result<std::string>>>();
    client_->get(type, type.namespaced ? "default" : "", name,
                 [out](Result<std::string> result) { *out = std::move(result); });
    settle([&] { return out->has_value(); });
    return **out ? json::parse(***out) : json();
  }
  std::vector<json> list(const kube::ResourceType& type) {
    auto out = std::make_shared<std::optional<Result<std::string>>>();
    client_->list(type, "default", {},
                  [out](Result<std::string> result) { *out = std::move(result); });
    settle([&] { return out->has_value(); });
    EXPECT_TRUE(**out);
    return json::parse(***out)["items"].get<std::vector<json>>();
  }
  // The store's thread answers in its own time: waits for what comes, not for a number of turns.
  void wait(const std::function<bool()>& what) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      run_pods();
      if (what()) return;
      loop_->run_until([] { return false; }, std::chrono::milliseconds(1));
    }
    FAIL() << "did not come to be";
  }
  void turn_once() {
    bool ran = false;
    loop_->post([&] { ran = true; });
    settle([&] { return ran; });
  }
  void add_node(const std::string& name, const json& labels = json::object(), int pods = 110) {
    create(kube::kNodes, "", {{"metadata", {{"name", name}, {"labels", labels}}}});
    kube::WriteOptions status;
    status.subresource = "status";
    patch(kube::kNodes, "", name, kube::PatchKind::kMerge,
          {{"status",
            {{"allocatable", {{"cpu", "2"}, {"memory", "1Gi"}, {"pods", std::to_string(pods)}}},
             {"conditions", {{{"type", "Ready"}, {"status", "True"}}}}}}},
          status);
  }
  // Plays every node's agent: what is bound runs at once, what is deleted goes.
  void run_pods() {
    for (const json& pod : list(kube::kPods)) {
      const std::string name = pod["metadata"]["name"];
      if (pod["metadata"].contains("deletionTimestamp")) {
        ApiCore::Deletion now;
        now.grace_s = 0;
        remove(kube::kPods, "default", name, now);
        continue;
      }
      if (!run_ || kube::text_at(pod, "spec", "nodeName").empty() ||
          kube::text_at(pod, "status", "phase") != "Pending") {
        continue;
      }
      if (kube::text_at(pod["spec"]["containers"][0], "image") == "broken") continue;
      kube::WriteOptions status;
      status.subresource = "status";
      const std::string ip = "10.0.0." + std::to_string(++ips_);
      patch(kube::kPods, "default", name, kube::PatchKind::kMerge,
            {{"status",
              {{"phase", "Running"},
               {"podIP", ip},
               {"podIPs", {{{"ip", ip}}}},
               {"conditions",
                {{{"type", "Ready"},
                  {"status", "True"},
                  {"lastTransitionTime", "2026-01-01T00:00:00Z"}}}}}}},
            status);
    }
  }
  static json deployment(int replicas, const std::string& image) {
    return {{"apiVersion", "apps/v1"},
            {"kind", "Deployment"},
            {"metadata", {{"name", "web"}, {"namespace", "default"}}},
            {"spec",
             {{"replicas", replicas},
              {"selector", {{"matchLabels", {{"app", "web"}}}}},
              {"template",
               {{"metadata", {{"labels", {{"app", "web"}}}}},
                {"spec",
                 {{"containers",
                   {{{"name", "web"},
                     {"image", image},
                     {"ports", {{{"name", "http"}, {"containerPort", 8080}}}}}}}}}}}}}};
  }
  int64_t status(const json& object, const char* field) {
    return int_at(object, {"status", field}, 0);
  }

  bool run_ = true;
  int ips_ = 0;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<Controllers> controllers_;
};

}  // namespace edgemesh::cloud::controllers
