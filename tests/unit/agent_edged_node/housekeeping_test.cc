#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "agent/edged/node/image_collector.h"
#include "agent/edged/node/log_rotation.h"
#include "agent/edged/spec/labels.h"
#include "tests/support/fake_cri.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class HousekeepingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    runtime_ = std::make_unique<test::FakeRuntime>(*loop_);
  }
  void pass(Duration time) {
    clock_.advance(time);
    for (int i = 0; i < 30; ++i) loop_->run_once();
  }
  // A running container "main" of pod "web", from an image that is there.
  std::string container(const std::string& image, uint32_t attempt = 0) {
    cri::pb::RunPodSandboxRequest sandbox;
    auto* meta = sandbox.mutable_config()->mutable_metadata();
    meta->set_name("web");
    meta->set_uid("u1");
    meta->set_namespace_("shop");
    meta->set_attempt(attempt);
    cri::pb::CreateContainerRequest request;
    std::string id;
    runtime_->run_pod_sandbox(sandbox, [&](auto made) { request.set_pod_sandbox_id(*made); });
    pass(seconds(0));
    *request.mutable_sandbox_config() = sandbox.config();
    auto* config = request.mutable_config();
    config->mutable_metadata()->set_name("main");
    config->mutable_metadata()->set_attempt(attempt);
    config->mutable_image()->set_image(image);
    auto& labels = *config->mutable_labels();
    labels[kPodUidLabel] = "u1";
    labels[kPodNameLabel] = "web";
    labels[kPodNamespaceLabel] = "shop";
    labels[kContainerNameLabel] = "main";
    runtime_->create_container(request, [&](auto made) { id = *made; });
    pass(seconds(0));
    runtime_->start_container(id, [](auto) {});
    pass(seconds(0));
    runtime_->calls.clear();
    return id;
  }
  std::vector<std::string> logs() {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(dir_.file("shop_web_u1/main")))
      out.push_back(entry.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }
  void write_log(size_t bytes) {
    fs::create_directories(dir_.file("shop_web_u1/main"));
    std::ofstream(dir_.file("shop_web_u1/main/0.log")) << std::string(bytes, 'x');
  }
  std::vector<std::string> images() {
    std::vector<std::string> out;
    for (const auto& [name, image] : runtime_->images) out.push_back(name);
    return out;
  }

  ManualClock clock_;
  test::TempDir dir_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<test::FakeRuntime> runtime_;
};

TEST_F(HousekeepingTest, LogsAreRotatedAndFewAreKept) {
  runtime_->add_image("web:1");
  container("web:1");
  LogRotation rotation(*loop_, *runtime_,
                       {.log_root = dir_.path(), .most_bytes = 100, .most_files = 3});
  rotation.start();
  write_log(99);
  pass(seconds(10));
  EXPECT_THAT(logs(), ElementsAre("0.log"));
  for (int i = 0; i < 4; ++i) {
    write_log(100);
    pass(seconds(10));
  }
  const auto left = logs();
  ASSERT_EQ(left.size(), 2u);  // the new one is the runtime's to make
  EXPECT_TRUE(left[0].starts_with("0.log.2023")) << left[0];
  EXPECT_LT(left[0], left[1]);
}

TEST_F(HousekeepingTest, ALogThatIsNotReopenedKeepsItsName) {
  runtime_->add_image("web:1");
  container("web:1");
  LogRotation rotation(*loop_, *runtime_, {.log_root = dir_.path(), .most_bytes = 100});
  rotation.start();
  runtime_->fail_next("ReopenContainerLog", {ErrorCode::kUnavailable, "no", 0});
  write_log(100);
  pass(seconds(10));
  EXPECT_THAT(logs(), ElementsAre("0.log"));
}

TEST_F(HousekeepingTest, ImagesGoWhenTheDiskIsFull) {
  for (const char* image : {"used:1", "old:1", "older:1"}) runtime_->add_image(image, 100);
  runtime_->add_image("registry.k8s.io/pause:3.6", 100);
  container("used:1");
  ImageCollector::Usage usage{1000, 500};
  ImageCollector collector(*loop_, *runtime_, {.usage = [&](const std::string&) { return usage; }});
  collector.start();
  pass(minutes(5));
  pass(minutes(5));
  EXPECT_EQ(images().size(), 4u);  // there is room

  runtime_->add_image("young:1", 100);
  usage.free = 120;  // 88 %: one image makes it 78
  pass(minutes(5));
  EXPECT_EQ(images().size(), 4u);
  usage.free = 10;
  pass(minutes(5));
  // Nothing that is in use, and not what sandboxes are made of; the young one is old by now.
  EXPECT_THAT(images(), ElementsAre("docker.io/library/used:1", "registry.k8s.io/pause:3.6"));
}

TEST_F(HousekeepingTest, ImagesThatJustCameStay) {
  runtime_->add_image("new:1", 100);
  ImageCollector collector(*loop_, *runtime_, {.usage = [](const std::string&) {
    return ImageCollector::Usage{1000, 0};
  }});
  collector.start();
  pass(minutes(5));
  EXPECT_EQ(images().size(), 1u);
}

TEST_F(HousekeepingTest, AnImageThatWillNotGoDoesNotHoldUpTheOthers) {
  runtime_->add_image("a:1", 100);
  runtime_->add_image("b:1", 100);
  ImageCollector collector(*loop_, *runtime_, {.usage = [](const std::string&) {
    return ImageCollector::Usage{1000, 0};
  }});
  collector.start();
  pass(minutes(5));
  runtime_->fail_next("RemoveImage", {ErrorCode::kUnavailable, "in use", 0});
  pass(minutes(5));
  EXPECT_EQ(images().size(), 1u);
}

}  // namespace
}  // namespace edgemesh::edged
