#include "agent/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"
#include "tests/support/test_pki.h"

namespace edgemesh::agent {
namespace {

class IdentityTest : public ::testing::Test {
 protected:
  Identity make(const std::string& node) {
    const tls::KeyAndCert pair = pki_.issue("system:node:" + node);
    return test::TestPki::take(make_identity(pair.cert_pem, pair.key_pem, pki_.ca().cert_pem));
  }
  std::string path(const std::string& name = {}) const { return dir_.path() + "/state/node" + name; }
  static int mode(const std::string& file) {
    struct stat st {};
    return ::stat(file.c_str(), &st) == 0 ? static_cast<int>(st.st_mode & 0777) : -1;
  }

  test::TestPki pki_;
  test::TempDir dir_;
};

TEST_F(IdentityTest, SurvivesTheDiskWithAPrivateKeyThatIsPrivate) {
  const Identity identity = make("edge-1");
  ASSERT_TRUE(save_identity(path(), identity));

  auto loaded = load_identity(path());
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->node, "edge-1");
  EXPECT_EQ(loaded->key_pem, identity.key_pem);
  EXPECT_EQ(loaded->not_after, identity.not_after);
  EXPECT_EQ(mode(path("/node.key")), 0600);
  EXPECT_EQ(mode(path("/node.crt")), 0644);
  EXPECT_EQ(mode(path()), 0700);
  EXPECT_EQ(::access(path("/node.next").c_str(), F_OK), -1);
}

TEST_F(IdentityTest, ANodeThatHasNotJoinedIsToldHow) {
  auto loaded = load_identity(path());
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
  EXPECT_NE(loaded.error().message.find("edgemesh join"), std::string::npos);
}

TEST_F(IdentityTest, PartsThatDoNotFitAreRefused) {
  const Identity a = make("edge-1");
  const Identity b = make("edge-2");
  EXPECT_FALSE(make_identity(a.cert_pem, b.key_pem, a.ca_pem));
  EXPECT_FALSE(make_identity(a.cert_pem, a.key_pem, test::TestPki("other").ca().cert_pem));
  EXPECT_FALSE(make_identity("", a.key_pem, a.ca_pem));
  const tls::KeyAndCert other = pki_.issue("someone");
  EXPECT_FALSE(make_identity(other.cert_pem, other.key_pem, a.ca_pem));
  ASSERT_TRUE(save_identity(path(), a));
  ASSERT_TRUE(write_file_atomically(path("/node.key"), b.key_pem, 0600));
  auto loaded = load_identity(path());
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("join again"), std::string::npos);
}

// Killed after the new pair was complete but before it took over.
TEST_F(IdentityTest, AReplacementThatWasBegunIsFinished) {
  ASSERT_TRUE(save_identity(path(), make("edge-1")));
  const Identity next = make("edge-1");
  ASSERT_TRUE(write_file_atomically(path("/node.next"), next.key_pem + next.cert_pem, 0600));
  ASSERT_TRUE(write_file_atomically(path("/node.key"), next.key_pem, 0600));

  auto loaded = load_identity(path());
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->cert_pem, next.cert_pem);
  EXPECT_EQ(::access(path("/node.next").c_str(), F_OK), -1);
}

TEST_F(IdentityTest, WritingReplacesWholeFiles) {
  const std::string file = dir_.path() + "/f";
  ASSERT_TRUE(write_file_atomically(file, "one", 0644));
  ASSERT_TRUE(write_file_atomically(file + ".tmp", "of a run that was killed", 0644));
  ASSERT_TRUE(write_file_atomically(file, "two", 0600));
  EXPECT_EQ(read_file(file).value(), "two");
  EXPECT_EQ(mode(file), 0600);
  EXPECT_FALSE(read_file(file, 2));
  EXPECT_FALSE(write_file_atomically(dir_.path() + "/none/f", "x", 0600));
}

}  // namespace
}  // namespace edgemesh::agent
