#include "agent/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "agent/metastore.h"
#include "core/tls/x509.h"

namespace edgemesh::agent {
namespace {

class StateDirTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/edgemesh-agent-XXXXXX";
    dir_ = mkdtemp(pattern);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  Identity make(const std::string& node) {
    auto ca = *tls::self_signed_ca({.common_name = "KubeEdge"}, 0, 4'000'000'000);
    auto issued = *tls::issue(ca, {.subject = {.common_name = "system:node:" + node},
                                   .not_before = 1000, .not_after = 2000});
    return {node, ca.cert_pem, issued.cert_pem, issued.key_pem, 1000, 2000};
  }
  std::string dir_;
};

TEST_F(StateDirTest, AnIdentitySurvivesTheDisk) {
  ASSERT_TRUE(save_identity(dir_ + "/sub", make("edge-1")));
  auto loaded = load_identity(dir_ + "/sub");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->node, "edge-1");
  EXPECT_EQ(loaded->not_after, 2000);
  struct stat st {};
  ASSERT_EQ(stat((dir_ + "/sub/node.key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(StateDirTest, ANodeThatHasNotJoinedIsToldHow) {
  auto loaded = load_identity(dir_);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
  EXPECT_NE(loaded.error().message.find("edgemesh join"), std::string::npos);
}

TEST_F(StateDirTest, AKeyOfAnotherCertificateIsRefused) {
  auto identity = make("edge-1");
  identity.key_pem = make("edge-1").key_pem;
  ASSERT_TRUE(save_identity(dir_, identity));
  EXPECT_FALSE(load_identity(dir_));
}

TEST_F(StateDirTest, RenewalComesLateInTheLifeButBeforeItsEnd) {
  auto identity = make("edge-1");
  EXPECT_GE(renewal_time(identity), 1700);
  EXPECT_LE(renewal_time(identity), 1900);
}

TEST_F(StateDirTest, TheMetastoreKeepsWhatWasFlushed) {
  auto loop = *io::Loop::create();
  bool durable = false;
  {
    auto store = Metastore::open(*loop, dir_ + "/meta.db");
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_TRUE((*store)->take_loaded().empty());
    (*store)->put("default/service/a", "service", "{}");
    (*store)->put("default/service/b", "service", "{}");
    (*store)->put("default/service/a", "service", "{\"x\":1}");
    (*store)->remove("default/service/b");
    (*store)->flush([&] { durable = true; });
    ASSERT_TRUE(loop->run_until([&] { return durable; }, std::chrono::seconds(5)));
  }
  auto store = Metastore::open(*loop, dir_ + "/meta.db");
  ASSERT_TRUE(store);
  auto rows = (*store)->take_loaded();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].key, "default/service/a");
  EXPECT_EQ(rows[0].value, "{\"x\":1}");
}

TEST_F(StateDirTest, ABrokenMetastoreIsSetAside) {
  std::string path = dir_ + "/meta.db";
  ASSERT_TRUE(write_file(path, std::string(8192, 'x'), 0600));
  auto loop = *io::Loop::create();
  auto store = Metastore::open(*loop, path);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_TRUE((*store)->take_loaded().empty());
  int aside = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_))
    aside += entry.path().string().find(".broken-") != std::string::npos ? 1 : 0;
  EXPECT_EQ(aside, 1);
}

}  // namespace
}  // namespace edgemesh::agent
