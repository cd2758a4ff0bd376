// The fake must refuse what a runtime refuses: else tests that use it prove nothing.
#include "tests/support/fake_cri.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace edgemesh::cri {
namespace {

using namespace std::chrono_literals;
using test::FakeRuntime;
using ::testing::ElementsAre;

class FakeRuntimeTest : public ::testing::Test {
 protected:
  template <class T, class Start>
  Result<T> wait(Start start) {
    std::optional<Result<T>> got;
    start([&](Result<T> r) { got.emplace(std::move(r)); });
    EXPECT_FALSE(got) << "answered from within the call";
    EXPECT_TRUE(loop->run_until([&] { return got.has_value(); }, 5s));
    return got ? std::move(*got) : fail(ErrorCode::kInternal, "no answer");
  }
  Result<std::string> run_sandbox() {
    pb::RunPodSandboxRequest request;
    request.mutable_config()->mutable_metadata()->set_name("web");
    (*request.mutable_config()->mutable_labels())["app"] = "web";
    return wait<std::string>([&](auto done) { runtime.run_pod_sandbox(request, std::move(done)); });
  }
  Result<std::string> create(const std::string& sandbox) {
    pb::CreateContainerRequest request;
    request.set_pod_sandbox_id(sandbox);
    request.mutable_config()->mutable_metadata()->set_name("main");
    request.mutable_config()->mutable_image()->set_image("web:1");
    request.mutable_sandbox_config()->mutable_metadata()->set_name("web");
    return wait<std::string>(
        [&](auto done) { runtime.create_container(request, std::move(done)); });
  }
  Result<> start(const std::string& id) {
    return wait<void>([&](auto done) { runtime.start_container(id, std::move(done)); });
  }
  pb::ContainerStatus status(const std::string& id) { return runtime.containers.at(id).status; }

  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  FakeRuntime runtime{*loop};
};

TEST_F(FakeRuntimeTest, LifeOfAContainer) {
  auto sandbox = run_sandbox();
  ASSERT_TRUE(sandbox);
  EXPECT_FALSE(run_sandbox()) << "its name is taken";
  auto no_image = create(*sandbox);
  ASSERT_FALSE(no_image);
  EXPECT_EQ(no_image.error().code, ErrorCode::kNotFound);
  runtime.add_image("web:1");
  auto id = create(*sandbox);
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_FALSE(create(*sandbox)) << "its name is taken";
  EXPECT_EQ(status(*id).state(), pb::CONTAINER_CREATED);
  EXPECT_TRUE(start(*id));
  EXPECT_FALSE(start(*id)) << "it runs already";
  EXPECT_TRUE(wait<void>([&](auto done) { runtime.stop_container(*id, 1s, std::move(done)); }));
  EXPECT_EQ(status(*id).state(), pb::CONTAINER_EXITED);
  EXPECT_EQ(status(*id).exit_code(), 143);
  auto exec = wait<pb::ExecSyncResponse>(
      [&](auto done) { runtime.exec_sync(*id, {"true"}, 1s, std::move(done)); });
  EXPECT_FALSE(exec) << "it does not run";
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(wait<void>([&](auto done) { runtime.remove_container(*id, std::move(done)); }));
  auto gone = wait<pb::ContainerStatusResponse>(
      [&](auto done) { runtime.container_status(*id, false, std::move(done)); });
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
}

TEST_F(FakeRuntimeTest, StoppedSandboxTakesItsContainersAlong) {
  runtime.add_image("web:1");
  std::string sandbox = run_sandbox().value();
  std::string id = create(sandbox).value();
  ASSERT_TRUE(start(id));
  EXPECT_TRUE(wait<void>([&](auto done) { runtime.stop_pod_sandbox(sandbox, std::move(done)); }));
  EXPECT_EQ(status(id).exit_code(), 137);
  pb::PodSandboxFilter filter;
  (*filter.mutable_label_selector())["app"] = "web";
  filter.mutable_state()->set_state(pb::SANDBOX_READY);
  auto list = [&] {
    return wait<pb::ListPodSandboxResponse>(
               [&](auto done) { runtime.list_pod_sandboxes(filter, std::move(done)); })
        .value();
  };
  EXPECT_EQ(list().items_size(), 0);
  filter.mutable_state()->set_state(pb::SANDBOX_NOTREADY);
  EXPECT_EQ(list().items_size(), 1);
  EXPECT_TRUE(wait<void>([&](auto done) { runtime.remove_pod_sandbox(sandbox, std::move(done)); }));
  EXPECT_TRUE(runtime.containers.empty());
}

TEST_F(FakeRuntimeTest, FailuresAndDelaysOnRequest) {
  runtime.fail_next("RunPodSandbox", {ErrorCode::kUnavailable, "no network", 0});
  auto first = run_sandbox();
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().message, "no network");
  EXPECT_TRUE(run_sandbox());

  runtime.hold("PullImage");
  runtime.registry.insert(FakeRuntime::full_name("web:1"));
  pb::PullImageRequest request;
  request.mutable_image()->set_image("web:1");
  std::optional<Result<std::string>> pulled;
  runtime.pull_image(request, [&](Result<std::string> r) { pulled.emplace(std::move(r)); });
  loop->run_once();
  EXPECT_FALSE(pulled);
  EXPECT_EQ(runtime.waiting("PullImage"), 1U);
  runtime.release("PullImage");
  EXPECT_TRUE(loop->run_until([&] { return pulled.has_value(); }, 5s));
  EXPECT_TRUE(*pulled);
  EXPECT_THAT(runtime.calls,
              ElementsAre("RunPodSandbox web", "RunPodSandbox web", "PullImage web:1"));
}

TEST_F(FakeRuntimeTest, ImageNamesAreNormalised) {
  EXPECT_EQ(FakeRuntime::full_name("web"), "docker.io/library/web:latest");
  EXPECT_EQ(FakeRuntime::full_name("me/web:1"), "docker.io/me/web:1");
  EXPECT_EQ(FakeRuntime::full_name("registry.k8s.io/pause:3.6"), "registry.k8s.io/pause:3.6");
  EXPECT_EQ(FakeRuntime::full_name("localhost:5000/a"), "localhost:5000/a:latest");
}

}  // namespace
}  // namespace edgemesh::cri
