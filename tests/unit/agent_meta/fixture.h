// A metastore on disk, a bus, and a hub that keeps what would go to the cloud.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/metastore.h"
#include "tests/support/fake_hub.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::agent {

class MetaFixture : public ::testing::Test {
 protected:
  using Json = nlohmann::json;
  void SetUp() override { loop_ = std::move(*io::Loop::create(clock_)); }
  void open_store() {
    store_.reset();
    auto store = Metastore::open(*loop_, dir_.path() + "/meta.db", registry_);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  // The store's thread answers in its own time: waits for it, for as long as it takes.
  void settle() {
    for (int round = 0; round < 3; ++round) {
      bool flushed = false;
      store_->flush([&](Result<>) { flushed = true; });
      while (!flushed) loop_->run_once();
      for (int i = 0; i < 6; ++i) loop_->run_once();
    }
  }
  std::vector<bus::Message> take() {
    settle();
    return std::exchange(hub_.sent, {});
  }

  ManualClock clock_;
  test::TempDir dir_;
  obs::Registry registry_;
  std::unique_ptr<io::Loop> loop_;
  test::FakeHub hub_;
  std::unique_ptr<Metastore> store_;
  std::unique_ptr<bus::Bus> bus_;
};

}  // namespace edgemesh::agent
