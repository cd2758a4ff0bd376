// The configuration's file read again while connections are served.
#include "proxy/listener/config_file.h"

#include <fstream>
#include <map>

#include "tests/support/temp_dir.h"
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class ConfigFileTest : public ListenerTest {
 protected:
  void SetUp() override { file_ = std::make_unique<ConfigFile>(*loop_, *proxy_, path_); }
  void TearDown() override { file_.reset(); }

  void write(const std::string& text) { std::ofstream(path_) << text; }
  // `count` clusters, one of them with another timeout, and a listener whose answers say `body`.
  static std::string text(int count, int changed, const std::string& body) {
    std::string out =
        "listeners:\n- {name: web, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n"
        "routes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes:\n"
        "    - {match: {prefix: /}, respond: {body: " +
        body + "}}\nclusters:\n";
    for (int i = 0; i < count; ++i)
      out += fmt::format(
          "- {{name: c{}, connectTimeout: {}s, endpoints: [{{address: \"10.0.0.1:80\"}}]}}\n", i,
          i == changed ? 7 : 3);
    return out;
  }
  Result<> reload() {
    std::optional<Result<>> result;
    file_->reload([&](Result<> done) { result = std::move(done); });
    EXPECT_TRUE(until([&] { return result.has_value(); }));
    settle(5);
    return result ? *result : Result<>();
  }
  std::map<std::string, const HostSet*> sets() {
    std::map<std::string, const HostSet*> out;
    for (const auto& set : proxy_->clusters()) {
      out[set->cluster().name] = set.get();
      kept_.push_back(set);  // an address is not used again
    }
    return out;
  }

  test::TempDir dir_;
  std::string path_ = dir_.file("proxy.yaml");
  std::unique_ptr<ConfigFile> file_;
  std::vector<std::shared_ptr<const HostSet>> kept_;
};

TEST_F(ConfigFileTest, AChangeToOneClusterIsWorkForOne) {
  write(text(200, -1, "one"));
  ASSERT_TRUE(reload());
  const auto before = sets();
  ASSERT_EQ(before.size(), 200U);
  const auto routes = proxy_->config()->routes.at("r");

  write(text(200, 17, "one"));
  ASSERT_TRUE(reload());

  const auto after = sets();
  ASSERT_EQ(after.size(), 200U);
  for (const auto& [name, set] : after) EXPECT_EQ(set == before.at(name), name != "c17") << name;
  EXPECT_EQ(proxy_->config()->routes.at("r"), routes);
}

TEST_F(ConfigFileTest, WhatIsWrongChangesNothingAndIsNamed) {
  write(text(2, -1, "one"));
  ASSERT_TRUE(reload());
  const auto config = proxy_->config();
  write(text(2, -1, "two") + "bogus: 1\n");

  const auto wrong = reload();

  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr(path_));
  EXPECT_THAT(wrong.error().message, HasSubstr("bogus"));
  EXPECT_EQ(proxy_->config(), config);
  EXPECT_THAT(talk(dial("web"), get("/"), "one"), HasSubstr("200"));
}

TEST_F(ConfigFileTest, AnOpenConnectionFollowsTheNewRoutes) {
  write(text(2, -1, "one"));
  ASSERT_TRUE(reload());
  auto& client = dial("web");
  talk(client, get("/"), "one");
  const auto addr = addr_of("web");

  write(text(2, -1, "two"));
  ASSERT_TRUE(reload());

  EXPECT_THAT(talk(client, get("/"), "two"), HasSubstr("two"));
  EXPECT_EQ(addr_of("web"), addr);
}

// The second one asks while the first is read: the file may have changed since.
TEST_F(ConfigFileTest, WhoAsksMeanwhileGetsAReadingOfHisOwn) {
  write(text(2, -1, "one"));
  int answers = 0;
  file_->reload([&](Result<> done) {
    EXPECT_TRUE(done);
    ++answers;
  });
  write(text(3, -1, "two"));
  for (int i = 0; i < 2; ++i) {
    file_->reload([&](Result<> done) {
      EXPECT_TRUE(done);
      EXPECT_EQ(proxy_->config()->clusters.size(), 3U);
      ++answers;
    });
  }
  ASSERT_TRUE(until([&] { return answers == 3; }));
}

TEST_F(ConfigFileTest, ItMayEndWhileItReads) {
  write(text(100, -1, "one"));
  bool told = false;
  file_->reload([&](Result<>) { told = true; });
  file_.reset();
  settle(50);
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace edgemesh::proxy
