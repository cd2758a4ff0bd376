// A store with the API's rules on it, on a loop that the test turns.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cloud/api/core.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::cloud {

class ApiFixture : public testing::Test {
 protected:
  using json = nlohmann::json;

  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    options_.path = dir_.file("api.db");
    open();
  }
  void TearDown() override {
    core_.reset();
    store_.reset();
  }
  void open() {
    core_.reset();
    store_.reset();
    auto store = ApiStore::open(*loop_, registry_, options_);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    core_ = std::make_unique<ApiCore>(*loop_, *store_, registry_, ApiCore::Options());
    core_->start();
    settle([&] { return store_->count(info(kube::kNamespaces)) >= 4; });
  }
  void settle(const std::function<bool()>& done) {
    ASSERT_TRUE(loop_->run_until(done, std::chrono::seconds(10)));
  }
  const ResourceInfo& info(const kube::ResourceType& type) { return *registry_.find(type); }

  // Runs one write to its end.
  template <class Call>
  ApiResult<ApiCore::Written> finish(Call call) {
    auto result = std::make_shared<std::unique_ptr<ApiResult<ApiCore::Written>>>();
    call([result](ApiResult<ApiCore::Written> written) {
      *result = std::make_unique<ApiResult<ApiCore::Written>>(std::move(written));
    });
    settle([&] { return *result != nullptr; });
    return std::move(**result);
  }
  ApiResult<ApiCore::Written> create(const kube::ResourceType& type, const std::string& ns,
                                     json body, const kube::WriteOptions& options = {}) {
    return finish([&](ApiCore::Done done) {
      core_->create(info(type), ns, std::move(body), options, std::move(done));
    });
  }
  ApiResult<ApiCore::Written> update(const kube::ResourceType& type, const std::string& ns,
                                     json body, const kube::WriteOptions& options = {}) {
    std::string name = kube::text_at(body, "metadata", "name");
    return finish([&](ApiCore::Done done) {
      core_->update(info(type), ns, name, std::move(body), options, std::move(done));
    });
  }
  ApiResult<ApiCore::Written> patch(const kube::ResourceType& type, const std::string& ns,
                                    const std::string& name, kube::PatchKind kind,
                                    const json& patch_body,
                                    const kube::WriteOptions& options = {}) {
    return finish([&](ApiCore::Done done) {
      core_->patch(info(type), ns, name, kind, patch_body, options, std::move(done));
    });
  }
  ApiResult<ApiCore::Written> remove(const kube::ResourceType& type, const std::string& ns,
                                     const std::string& name,
                                     const ApiCore::Deletion& deletion = {}) {
    return finish([&](ApiCore::Done done) {
      core_->remove(info(type), ns, name, deletion, std::move(done));
    });
  }
  static json parse(const ApiResult<ApiCore::Written>& written) {
    EXPECT_TRUE(written) << written.error().message;
    return written ? json::parse(written->text) : json();
  }
  static json service(const std::string& name) {
    return {{"metadata", {{"name", name}}}, {"spec", {{"ports", {{{"port", 80}}}}}}};
  }
  static json config_map(const std::string& name, const std::string& value = "v") {
    return {{"metadata", {{"name", name}}}, {"data", {{"k", value}}}};
  }

  std::unique_ptr<io::Loop> loop_;
  test::TempDir dir_;
  ApiStore::Options options_;
  ResourceRegistry registry_;
  std::unique_ptr<ApiStore> store_;
  std::unique_ptr<ApiCore> core_;
};

}  // namespace edgemesh::cloud
