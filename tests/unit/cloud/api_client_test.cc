#include "cloud/api/embedded_client.h"
#include "kube/informer.h"
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

class EmbeddedClientTest : public ApiFixture {
 protected:
  void SetUp() override {
    ApiFixture::SetUp();
    client_ = make_embedded_client(*core_);
  }
  void TearDown() override {
    informer_.reset();
    client_.reset();
    ApiFixture::TearDown();
  }
  kube::Informer& start_informer(kube::Informer::Options options) {
    options.type = kube::kConfigMaps;
    kube::Informer::Handlers handlers;
    handlers.on_upsert = [this](const kube::Informer::Object& o) { log_ += "+" + o.name + " "; };
    handlers.on_delete = [this](const kube::Informer::Object& o) { log_ += "-" + o.name + " "; };
    handlers.on_synced = [this] { log_ += "synced "; };
    informer_ = std::make_unique<kube::Informer>(*loop_, *client_, options, std::move(handlers));
    informer_->start();
    return *informer_;
  }
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<kube::Informer> informer_;
  std::string log_;
};

TEST_F(EmbeddedClientTest, CreatesReadsPatchesAndRemoves) {
  std::string got, patched;
  ErrorCode missing = ErrorCode::kInternal, twice = ErrorCode::kInternal;
  int done = 0;
  client_->create(kube::kServices, "default", service("web").dump(), {}, [&](auto r) {
    EXPECT_TRUE(r) << r.error().message;
    ++done;
  });
  EXPECT_EQ(done, 0) << "no callback from within a call";
  settle([&] { return done == 1; });
  client_->create(kube::kServices, "default", service("web").dump(), {}, [&](auto r) {
    twice = r.error().code;
    ++done;
  });
  client_->get(kube::kServices, "default", "web", [&](auto r) {
    got = *r;
    ++done;
  });
  client_->patch(kube::kServices, "default", "web", kube::PatchKind::kMerge,
                 R"({"metadata":{"labels":{"a":"b"}}})", {}, [&](auto r) {
                   patched = *r;
                   ++done;
                 });
  client_->get(kube::kServices, "default", "nothing", [&](auto r) {
    missing = r.error().code;
    ++done;
  });
  settle([&] { return done == 5; });
  client_->remove(kube::kServices, "default", "web", {}, [&](auto r) {
    EXPECT_TRUE(r);
    ++done;
  });
  settle([&] { return done == 6; });

  EXPECT_EQ(twice, ErrorCode::kAlreadyExists);
  EXPECT_EQ(missing, ErrorCode::kNotFound);
  EXPECT_TRUE(kube::parse_service(got));
  EXPECT_EQ(json::parse(patched)["metadata"]["labels"]["a"], "b");
}

TEST_F(EmbeddedClientTest, InformerFollowsListAndWatch) {
  create(kube::kConfigMaps, "default", config_map("a"));
  create(kube::kConfigMaps, "default", config_map("b"));
  create(kube::kConfigMaps, "default", config_map("c"));
  kube::Informer::Options options;
  options.page_size = 2;
  auto& informer = start_informer(options);
  settle([&] { return informer.synced(); });
  EXPECT_EQ(log_, "+a +b +c synced ");

  update(kube::kConfigMaps, "default", config_map("b", "2"));
  remove(kube::kConfigMaps, "default", "a");
  create(kube::kConfigMaps, "kube-system", config_map("d"));
  settle([&] { return informer.find("kube-system", "d") != nullptr; });

  EXPECT_EQ(log_, "+a +b +c synced +b -a +d ");
  EXPECT_EQ(informer.find("default", "a"), nullptr);
  EXPECT_EQ(json::parse(informer.find("default", "b")->json)["data"]["k"], "2");
  EXPECT_EQ(informer.objects().size(), 3U);
}

TEST_F(EmbeddedClientTest, InformerWatchesAgainAfterItsTime) {
  kube::Informer::Options options;
  options.watch_timeout = std::chrono::milliseconds(5);
  options.backoff_min = std::chrono::milliseconds(1);
  options.backoff_max = std::chrono::milliseconds(2);
  auto& informer = start_informer(options);
  settle([&] { return informer.synced(); });

  for (int i = 0; i < 20; ++i) {
    std::string name = "n" + std::to_string(i);
    create(kube::kConfigMaps, "default", config_map(name));
    settle([&] { return informer.find("default", name) != nullptr; });
  }

  EXPECT_EQ(informer.objects().size(), 20U);
  EXPECT_EQ(log_.find("synced", log_.find("synced") + 1), std::string::npos) << "no second list";
}

TEST_F(EmbeddedClientTest, WatchFromAnOldVersionEndsAsGone) {
  client_.reset();
  options_.history_changes = 2;
  open();
  client_ = make_embedded_client(*core_);
  create(kube::kConfigMaps, "default", config_map("x"));
  uint64_t old = store_->version();
  for (const char* name : {"a", "b", "c", "d"})
    create(kube::kConfigMaps, "default", config_map(name));
  kube::WatchOptions options;
  options.resource_version = std::to_string(old);
  std::unique_ptr<Error> ended;
  kube::WatchHandler handler;
  handler.on_event = [](const kube::WatchEvent&) { FAIL(); };
  handler.on_end = [&](const Error& error) { ended = std::make_unique<Error>(error); };

  auto watch = client_->watch(kube::kConfigMaps, "", options, std::move(handler));
  EXPECT_EQ(ended, nullptr);
  settle([&] { return ended != nullptr; });

  EXPECT_EQ(ended->code, ErrorCode::kGone);
}

TEST_F(EmbeddedClientTest, DestroyedWatchAndClientStayQuiet) {
  kube::WatchOptions options;
  options.resource_version = std::to_string(store_->version());
  kube::WatchHandler handler;
  handler.on_event = [](const kube::WatchEvent&) { FAIL(); };
  handler.on_end = [](const Error&) { FAIL(); };
  auto watch = client_->watch(kube::kConfigMaps, "", options, std::move(handler));
  core_->create(info(kube::kConfigMaps), "default", config_map("a"), {},
                [&](auto) { watch.reset(); });
  settle([&] { return watch == nullptr; });
  client_->get(kube::kConfigMaps, "default", "a", [](auto) { FAIL(); });
  client_.reset();

  loop_->run_once();
  loop_->run_once();
}

}  // namespace
}  // namespace edgemesh::cloud
