#include "agent/edged/volumes/volume_manager.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/temp_dir.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Objects final : public ObjectSource {
 public:
  Result<Json> get(const std::string& kind, const std::string& ns,
                   const std::string& name) override {
    const auto it = all.find(kind + "/" + ns + "/" + name);
    if (it == all.end()) return fail(ErrorCode::kNotFound, "none");
    return it->second;
  }
  std::map<std::string, Json> all;
};

class FakeMounter final : public Mounter {
 public:
  bool visible() override { return seen; }
  Result<> mount_memory(const std::string& folder, int64_t bytes) override {
    memory[folder] = bytes;
    return {};
  }
  Result<> bind(int fd, const std::string& target) override {
    char path[4096] = {};
    if (readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), path, sizeof path - 1) < 0)
      return fail_errno("readlink", errno);
    binds[target] = path;
    return {};
  }
  Result<> unmount(const std::string& folder) override {
    memory.erase(folder);
    binds.erase(folder);
    return {};
  }
  std::vector<std::string> mounted_under(const std::string& root) override {
    std::vector<std::string> out;
    for (const auto& [path, bytes] : memory)
      if (path.starts_with(root + "/")) out.push_back(path);
    for (const auto& [path, from] : binds)
      if (path.starts_with(root + "/")) out.push_back(path);
    return out;
  }
  bool seen = true;
  std::map<std::string, int64_t> memory;
  std::map<std::string, std::string> binds;
};

class VolumesTest : public ::testing::Test {
 protected:
  Pod pod(Json volumes, Json mounts = Json::array(), Json spec = Json::object()) {
    Json object{
        {"metadata",
         {{"name", "web"}, {"namespace", "shop"}, {"uid", "u1"}, {"labels", {{"app", "web"}}}}},
        {"spec", {{"containers", {{{"name", "main"}, {"image", "web:1"}}}}}}};
    object["spec"].merge_patch(spec);
    object["spec"]["volumes"] = std::move(volumes);
    object["spec"]["containers"][0]["volumeMounts"] = std::move(mounts);
    auto out = parse_pod(object.dump());
    EXPECT_TRUE(out);
    return *out;
  }
  std::string path(const std::string& volume, const std::string& file = "") {
    return dir_.file("u1/volumes/" + volume + (file.empty() ? "" : "/" + file));
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path);
    std::ostringstream out;
    out << in.rdbuf();
    return in ? out.str() : "(none)";
  }
  static mode_t mode(const std::string& path) {
    struct stat is {};
    EXPECT_EQ(stat(path.c_str(), &is), 0) << path;
    return is.st_mode & 07777;
  }
  void expect_set_up(const Pod& p) {
    auto done = volumes_.set_up(p);
    ASSERT_TRUE(done) << done.error().message;
  }
  std::string set_up_error(const Pod& p) {
    auto done = volumes_.set_up(p);
    EXPECT_FALSE(done);
    return done ? "" : done.error().message;
  }
  Result<std::vector<pb::Mount>> mounts(const Pod& p, const Env& env = {}) {
    return volumes_.mounts(p, p.containers[0], env, "10.1.0.5", 0);
  }
  std::string mount_error(const Pod& p) {
    auto out = mounts(p);
    EXPECT_FALSE(out);
    return out ? "" : out.error().message;
  }
  static Json config(const char* name) { return {{"name", "v"}, {"configMap", {{"name", name}}}}; }

  test::TempDir dir_;
  Objects objects_;
  FakeMounter mounter_;
  VolumeManager volumes_{{.root = dir_.path(), .fields = {}}, objects_, nullptr, mounter_};
};

TEST_F(VolumesTest, ConfigMapIsWrittenAndReplacedAtOnce) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}, {"b", "2"}}},
                                      {"binaryData", {{"bin", "AAE="}}}};
  const Pod p = pod({config("c")});
  expect_set_up(p);
  EXPECT_EQ(read(path("v", "a")), "1");
  EXPECT_EQ(read(path("v", "bin")), std::string("\0\1", 2));
  EXPECT_EQ(mode(path("v", "a")), 0644);
  EXPECT_TRUE(fs::is_symlink(path("v", "a")));
  const fs::path before = fs::read_symlink(path("v", "..data"));

  expect_set_up(p);  // nothing changed: nothing is written
  EXPECT_EQ(fs::read_symlink(path("v", "..data")), before);

  objects_.all["configmap/shop/c"] = {{"data", {{"a", "11"}, {"new", "3"}}}};
  volumes_.refresh("configmap", "shop", "other");
  EXPECT_EQ(read(path("v", "a")), "1");
  volumes_.refresh("configmap", "shop", "c");
  EXPECT_EQ(read(path("v", "a")), "11");
  EXPECT_EQ(read(path("v", "new")), "3");
  EXPECT_FALSE(fs::exists(fs::symlink_status(path("v", "b"))));
  EXPECT_NE(fs::read_symlink(path("v", "..data")), before);
  EXPECT_FALSE(fs::exists(path("v", before)));
}

TEST_F(VolumesTest, WhatGoesAwayKeepsItsFiles) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}}}};
  expect_set_up(pod({config("c")}));
  objects_.all.clear();
  volumes_.refresh("configmap", "shop", "c");
  EXPECT_EQ(read(path("v", "a")), "1");
}

TEST_F(VolumesTest, MissingObjects) {
  EXPECT_EQ(set_up_error(pod({config("c")})), "volume \"v\": configmap \"c\" not found");
  EXPECT_EQ(set_up_error(pod({{{"name", "v"}, {"secret", {{"secretName", "s"}}}}})),
            "volume \"v\": secret \"s\" not found");
  expect_set_up(pod({{{"name", "v"}, {"secret", {{"secretName", "s"}, {"optional", true}}}}}));
  EXPECT_TRUE(fs::is_directory(path("v")));
  EXPECT_THAT(set_up_error(pod({{{"name", "v"}, {"persistentVolumeClaim", {{"claimName", "x"}}}}})),
              HasSubstr("persistentVolumeClaim"));
}

TEST_F(VolumesTest, SecretsAreInMemoryWithItemsAndModes) {
  objects_.all["secret/shop/s"] = {{"data", {{"key", "aHVudGVyMg=="}, {"other", "eA=="}}}};
  const Json secret{{"secretName", "s"},
                    {"defaultMode", 0400},
                    {"items",
                     {{{"key", "key"}, {"path", "deep/er/pass"}},
                      {{"key", "other"}, {"path", "o"}, {"mode", 0440}}}}};
  expect_set_up(pod({{{"name", "v"}, {"secret", secret}}}));
  EXPECT_TRUE(mounter_.memory.contains(path("v")));
  EXPECT_EQ(read(path("v", "deep/er/pass")), "hunter2");
  EXPECT_EQ(mode(path("v", "deep/er/pass")), 0400);
  EXPECT_EQ(mode(path("v", "o")), 0440);
}

TEST_F(VolumesTest, MountsThatNobodySeesAreNotMade) {
  mounter_.seen = false;
  objects_.all["secret/shop/s"] = {{"data", {{"key", "eA=="}}}};
  expect_set_up(pod({{{"name", "v"}, {"secret", {{"secretName", "s"}}}}}));
  EXPECT_THAT(mounter_.memory, IsEmpty());
  EXPECT_EQ(read(path("v", "key")), "x");
  EXPECT_EQ(mode(dir_.file("u1")), 0750);
}

TEST_F(VolumesTest, PathsOutOfTheVolumeAreRefused) {
  objects_.all["configmap/shop/c"] = {{"data", {{"k", "1"}}}};
  for (const char* bad : {"../x", "/x", "a/../../x", "..data", "a//b", ".", "a/."}) {
    const Json map{{"name", "c"}, {"items", {{{"key", "k"}, {"path", bad}}}}};
    EXPECT_THAT(set_up_error(pod({{{"name", "v"}, {"configMap", map}}})), HasSubstr("no path"))
        << bad;
  }
  objects_.all["configmap/shop/c"] = {{"data", {{"../k", "1"}}}};
  EXPECT_THAT(set_up_error(pod({config("c")})), HasSubstr("no path"));
  objects_.all["configmap/shop/c"] = {{"data", {{"k", "1"}}}};
  Json named = config("c");
  named["name"] = "../v";
  EXPECT_THAT(set_up_error(pod({named})), HasSubstr("name"));
}

TEST_F(VolumesTest, ProjectedHasManySources) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}}}};
  objects_.all["secret/shop/s"] = {{"data", {{"b", "eA=="}}}};
  const Json sources = Json::parse(R"([
    {"configMap": {"name": "c"}}, {"secret": {"name": "s"}},
    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    {"serviceAccountToken": {"path": "token"}}])");
  expect_set_up(pod({{{"name", "v"}, {"projected", {{"sources", sources}}}}}));
  EXPECT_EQ(read(path("v", "a")), "1");
  EXPECT_EQ(read(path("v", "b")), "x");
  EXPECT_EQ(read(path("v", "labels")), "app=\"web\"");
  EXPECT_FALSE(fs::exists(path("v", "token")));
  EXPECT_TRUE(mounter_.memory.contains(path("v")));
}

TEST_F(VolumesTest, TokensComeFromTheirSource) {
  class Tokens final : public TokenSource {
   public:
    Result<std::string> token(const Pod& pod, const std::string& audience,
                              int64_t seconds) override {
      return fmt::format("{} {} {} {}", pod.name, audience, seconds, version);
    }
    void forget(const std::string& uid) override { forgotten.push_back(uid); }
    void forget_others(const std::set<std::string>& uids) override { kept = uids; }
    int version = 1;
    std::vector<std::string> forgotten;
    std::set<std::string> kept;
  } tokens;
  VolumeManager volumes({.root = dir_.path(), .fields = {}}, objects_, &tokens, mounter_);
  const Json source{{"serviceAccountToken",
                     {{"path", "token"}, {"audience", "vault"}, {"expirationSeconds", 600}}}};
  const Pod p = pod({{{"name", "v"}, {"projected", {{"sources", {source}}}}}});
  ASSERT_TRUE(volumes.set_up(p));
  EXPECT_EQ(read(path("v", "token")), "web vault 600 1");

  tokens.version = 2;
  volumes.refresh_tokens("other");
  EXPECT_EQ(read(path("v", "token")), "web vault 600 1");
  volumes.refresh_tokens(p.uid);
  EXPECT_EQ(read(path("v", "token")), "web vault 600 2");

  volumes.remove_strangers({p.uid});
  EXPECT_EQ(tokens.kept, std::set<std::string>{p.uid});
  ASSERT_TRUE(volumes.tear_down(p.uid));
  EXPECT_EQ(tokens.forgotten, std::vector<std::string>{p.uid});
}

TEST_F(VolumesTest, PodsOfAnEarlierRunAreFollowed) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}}}};
  const Pod p = pod({config("c")});
  expect_set_up(p);
  VolumeManager next({.root = dir_.path(), .fields = {}}, objects_, nullptr, mounter_);
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "2"}}}};
  next.follow(p);  // changed while nobody looked
  EXPECT_EQ(read(path("v", "a")), "2");
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "3"}}}};
  next.refresh("configmap", "shop", "c");
  EXPECT_EQ(read(path("v", "a")), "3");
}

TEST_F(VolumesTest, EmptyDirs) {
  expect_set_up(pod({{{"name", "v"}, {"emptyDir", Json::object()}},
                     {{"name", "m"}, {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", "1Mi"}}}}}));
  EXPECT_EQ(mode(path("v")), 0777);
  EXPECT_EQ(mounter_.memory[path("m")], 1 << 20);
  EXPECT_FALSE(mounter_.memory.contains(path("v")));
  const Json group{{"securityContext", {{"fsGroup", getgid()}}}};
  expect_set_up(pod({{{"name", "g"}, {"emptyDir", Json::object()}}}, Json::array(), group));
  EXPECT_EQ(mode(path("g")), 02777);
}

TEST_F(VolumesTest, HostPathTypes) {
  const auto host = [&](const std::string& p, const char* type) {
    return pod({{{"name", "v"}, {"hostPath", {{"path", p}, {"type", type}}}}});
  };
  const std::string base = dir_.file("host");
  expect_set_up(host(base + "/none", ""));
  EXPECT_THAT(set_up_error(host(base + "/d", "Directory")), HasSubstr("type check failed"));
  expect_set_up(host(base + "/d", "DirectoryOrCreate"));
  expect_set_up(host(base + "/d", "Directory"));
  EXPECT_THAT(set_up_error(host(base + "/d", "File")), HasSubstr("is not a File"));
  expect_set_up(host(base + "/f", "FileOrCreate"));
  expect_set_up(host(base + "/f", "File"));
  EXPECT_THAT(set_up_error(host("/tmp/../etc", "Directory")), HasSubstr("no path"));
}

TEST_F(VolumesTest, MountsHostsAndLastWords) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}}}};
  const Json spec = Json::parse(R"({"hostAliases": [{"ip": "192.0.2.3", "hostnames": ["x", "y"]}],
                                    "hostname": "db-0", "subdomain": "db"})");
  const Pod p = pod({config("c"), {{"name", "e"}, {"emptyDir", Json::object()}}},
                    {{{"name", "v"}, {"mountPath", "/etc/c"}},
                     {{"name", "e"}, {"mountPath", "/data"}, {"readOnly", true}}},
                    spec);
  expect_set_up(p);
  auto out = mounts(p);
  ASSERT_TRUE(out) << out.error().message;
  ASSERT_EQ(out->size(), 4u);
  EXPECT_EQ((*out)[0].host_path(), path("v"));
  EXPECT_TRUE((*out)[0].readonly());  // its content is not the container's
  EXPECT_EQ((*out)[1].container_path(), "/data");
  EXPECT_TRUE((*out)[1].readonly());
  EXPECT_EQ((*out)[2].container_path(), "/etc/hosts");
  const std::string hosts = read((*out)[2].host_path());
  EXPECT_THAT(hosts, HasSubstr("10.1.0.5\tdb-0.db.shop.svc.cluster.local\tdb-0\n"));
  EXPECT_THAT(hosts, HasSubstr("192.0.2.3\tx\ty\n"));
  EXPECT_EQ((*out)[3].container_path(), "/dev/termination-log");
  EXPECT_EQ((*out)[3].host_path(), volumes_.last_words_file(p, "main", 0));
  EXPECT_EQ(mode((*out)[3].host_path()), 0666);
}

TEST_F(VolumesTest, SubPaths) {
  objects_.all["configmap/shop/c"] = {{"data", {{"a", "1"}}}};
  const auto with = [&](const char* volume, const char* key, const char* sub) {
    return pod({config("c"), {{"name", "e"}, {"emptyDir", Json::object()}}},
               {{{"name", volume}, {"mountPath", "/m"}, {key, sub}}});
  };
  const Pod file = with("v", "subPath", "a");
  expect_set_up(file);
  auto out = mounts(file);
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_EQ(read((*out)[0].host_path()), "1");
  EXPECT_FALSE(fs::is_symlink((*out)[0].host_path()));

  out = mounts(with("e", "subPathExpr", "$(POD)/x"), {{"POD", "p1"}});
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_EQ(mounter_.binds[(*out)[0].host_path()], path("e", "p1/x"));
  EXPECT_TRUE(fs::is_directory(path("e", "p1/x")));

  EXPECT_THAT(mount_error(with("v", "subPath", "none")), HasSubstr("not in the volume"));
  EXPECT_THAT(mount_error(with("e", "subPath", "../x")), HasSubstr("no path"));
  EXPECT_THAT(mount_error(with("e", "subPathExpr", "$(NONE)")), HasSubstr("no path"));
  EXPECT_THAT(mount_error(with("gone", "subPath", "x")), HasSubstr("no volume"));
}

TEST_F(VolumesTest, LinksThatAContainerMadeAreNotFollowed) {
  const Pod p = pod({{{"name", "e"}, {"emptyDir", Json::object()}}},
                    {{{"name", "e"}, {"mountPath", "/m"}, {"subPath", "a/b"}}});
  expect_set_up(p);
  fs::create_directory(path("e", "real"));
  fs::create_directory_symlink("/etc", path("e", "a"));
  EXPECT_THAT(mount_error(p), HasSubstr("is a link"));
  fs::remove(path("e", "a"));
  fs::create_directory(path("e", "a"));
  fs::create_symlink("/etc/passwd", path("e", "a/b"));
  EXPECT_THAT(mount_error(p), HasSubstr("is a link"));
  EXPECT_THAT(mounter_.binds, IsEmpty());
}

TEST_F(VolumesTest, NothingIsLeft) {
  objects_.all["secret/shop/s"] = {{"data", {{"k", "eA=="}}}};
  expect_set_up(pod({{{"name", "v"}, {"secret", {{"secretName", "s"}}}}}));
  ASSERT_TRUE(volumes_.tear_down("u1"));
  EXPECT_THAT(mounter_.memory, IsEmpty());
  EXPECT_FALSE(fs::exists(dir_.file("u1")));
  EXPECT_TRUE(volumes_.tear_down("u1"));
  EXPECT_FALSE(volumes_.tear_down(".."));
  EXPECT_FALSE(volumes_.tear_down(""));

  fs::create_directory(dir_.file("old"));
  fs::create_directory(dir_.file("kept"));
  volumes_.remove_strangers({"kept"});
  EXPECT_FALSE(fs::exists(dir_.file("old")));
  EXPECT_TRUE(fs::exists(dir_.file("kept")));
}

}  // namespace
}  // namespace edgemesh::edged
