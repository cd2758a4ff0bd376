#include "agent/cri/runtime_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/unit/grpc/fake_server.h"

namespace edgemesh::cri {
namespace {

using namespace std::chrono_literals;
using test::FakeConnection;
using test::FakeServer;
using ::testing::HasSubstr;
using Request = FakeConnection::Request;

class RuntimeClientTest : public ::testing::Test {
 protected:
  RuntimeClientTest() {
    RuntimeOptions options;
    options.endpoint = server.target();
    client = connect_runtime(*loop, options).value();
    server.script = [this](FakeConnection& c, const Request& r) {
      seen = r;
      c.answer(r.id, test::grpc_frame(answer), trailers);
    };
  }
  // Runs one call to its end.
  template <class T, class Start>
  Result<T> wait(Start start) {
    std::optional<Result<T>> got;
    start([&](Result<T> r) { got.emplace(std::move(r)); });
    EXPECT_TRUE(loop->run_until([&] { return got.has_value(); }, 5s));
    return got ? std::move(*got) : fail(ErrorCode::kInternal, "no answer");
  }
  template <class Message>
  Message sent() const {
    Message message;
    EXPECT_TRUE(message.ParseFromString(seen.body.substr(5)));
    return message;
  }
  int64_t told_seconds() const { return std::stoll(seen.header("grpc-timeout")) / 1000; }

  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  FakeServer server{*loop};
  std::unique_ptr<RuntimeClient> client;
  Request seen;
  std::string answer;
  test::Fields trailers{{"grpc-status", "0"}};
};

TEST_F(RuntimeClientTest, SandboxRequestGoesOutAndItsIdComesBack) {
  pb::RunPodSandboxResponse made;
  made.set_pod_sandbox_id("abc");
  answer = made.SerializeAsString();
  pb::RunPodSandboxRequest request;
  request.mutable_config()->mutable_metadata()->set_namespace_("default");
  request.mutable_config()->mutable_metadata()->set_name("web");
  auto id =
      wait<std::string>([&](auto done) { client->run_pod_sandbox(request, std::move(done)); });
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_EQ(*id, "abc");
  EXPECT_EQ(seen.header(":path"), "/runtime.v1.RuntimeService/RunPodSandbox");
  EXPECT_EQ(sent<pb::RunPodSandboxRequest>().config().metadata().namespace_(), "default");
}

TEST_F(RuntimeClientTest, ImagesAreAServiceOfTheirOwn) {
  auto none = wait<pb::ImageStatusResponse>(
      [&](auto done) { client->image_status("web:1", std::move(done)); });
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_image());
  EXPECT_EQ(seen.header(":path"), "/runtime.v1.ImageService/ImageStatus");
  EXPECT_EQ(sent<pb::ImageStatusRequest>().image().image(), "web:1");
}

TEST_F(RuntimeClientTest, StoppingHasTimeForTheGracePeriod) {
  auto stopped =
      wait<void>([&](auto done) { client->stop_container("c", 300500ms, std::move(done)); });
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_EQ(sent<pb::StopContainerRequest>().timeout(), 301);
  EXPECT_GT(told_seconds(), 310) << "our deadline is behind the runtime's";
}

TEST_F(RuntimeClientTest, ExecTimeIsTheRuntimesWithAMargin) {
  pb::ExecSyncResponse out;
  out.set_stdout("hi\n");
  out.set_exit_code(3);
  answer = out.SerializeAsString();
  auto got = wait<pb::ExecSyncResponse>([&](auto done) {
    client->exec_sync("c", {"sh", "-c", "exit 3"}, 1s, std::move(done));
  });
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->exit_code(), 3);
  EXPECT_EQ(got->stdout(), "hi\n");
  EXPECT_EQ(sent<pb::ExecSyncRequest>().timeout(), 1);
  EXPECT_EQ(sent<pb::ExecSyncRequest>().cmd_size(), 3);
  EXPECT_GE(told_seconds(), 10);
}

TEST_F(RuntimeClientTest, ErrorsNameTheCall) {
  trailers = {{"grpc-status", "5"}, {"grpc-message", "container \"c\": not found"}};
  auto got = wait<pb::ContainerStatusResponse>(
      [&](auto done) { client->container_status("c", false, std::move(done)); });
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(got.error().message, HasSubstr("ContainerStatus"));
  EXPECT_THAT(got.error().message, HasSubstr("container \"c\": not found"));
}

TEST_F(RuntimeClientTest, BytesThatAreNoMessageAreTheRuntimesMistake) {
  answer = "\xff\xff\xff";
  auto got = wait<pb::VersionResponse>([&](auto done) { client->version(std::move(done)); });
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kProtocol);
}

TEST_F(RuntimeClientTest, FieldsOfNewerRuntimesAreSkipped) {
  pb::VersionResponse v;
  v.set_runtime_name("containerd");
  answer = v.SerializeAsString() + std::string(
                                       "\xfa\x07\x03"
                                       "new",
                                       6);  // field 127
  auto got = wait<pb::VersionResponse>([&](auto done) { client->version(std::move(done)); });
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->runtime_name(), "containerd");
}

TEST_F(RuntimeClientTest, RequestsThatRuntimesDieOfAreNotSent) {
  pb::CreateContainerRequest create;
  create.mutable_config()->mutable_metadata()->set_name("main");
  create.mutable_config()->mutable_image()->set_image("web:1");
  auto start = [&](auto done) { client->create_container(create, std::move(done)); };
  auto got = wait<std::string>(start);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kInvalidArgument);
  auto run = wait<std::string>(
      [&](auto done) { client->run_pod_sandbox(pb::RunPodSandboxRequest(), std::move(done)); });
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(server.connections.empty());
  create.mutable_sandbox_config()->mutable_metadata()->set_name("web");
  EXPECT_TRUE(wait<std::string>(start));
}

TEST_F(RuntimeClientTest, EndpointsThatCannotBe) {
  RuntimeOptions options;
  options.endpoint = "containerd";
  EXPECT_FALSE(connect_runtime(*loop, options));
}

}  // namespace
}  // namespace edgemesh::cri
