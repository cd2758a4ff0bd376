#include "core/config/reader.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace edgemesh::config {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

enum class Mode { kAuto, kFast };

struct Sample {
  std::string name = "default";
  bool on = false;
  uint16_t port = 53;
  Duration wait = seconds(1);
  SockAddr listen{IpAddr::loopback(), 1};
  HostPort cloud;
  std::vector<Cidr> cidrs;
  std::vector<std::string> words{"x"};
  Mode mode = Mode::kAuto;
};

Result<Sample> parse(std::string_view text) {
  EM_TRY(auto document, Document::from_text(text, "a.yaml"));
  Sample out;
  Reader root = document.root();
  root.read("name", &out.name);
  root.read("on", &out.on);
  Reader dns = root.section("dns");
  dns.read("port", &out.port, 1);
  dns.read("wait", &out.wait, milliseconds(10), minutes(1));
  root.read("listen", &out.listen, 15000);
  root.read("cloud", &out.cloud, 10000);
  root.read("cidrs", &out.cidrs);
  root.read("words", &out.words);
  root.read_enum("mode", &out.mode, {{"auto", Mode::kAuto}, {"fast", Mode::kFast}});
  EM_TRY_VOID(document.finish());
  return out;
}

std::string error_of(std::string_view text) {
  auto result = parse(text);
  return result ? "accepted" : result.error().message;
}

TEST(ConfigReaderTest, AnEmptyFileLeavesTheDefaults) {
  for (const char* text : {"", "# nothing\n", "---\n", "dns:\n"}) {
    auto sample = parse(text);
    ASSERT_TRUE(sample) << text << ": " << sample.error().message;
    EXPECT_EQ(sample->name, "default");
    EXPECT_EQ(sample->port, 53);
  }
}

TEST(ConfigReaderTest, EveryKindOfValueIsRead) {
  auto sample = parse(
      "name: '5'\non: true\ndns: {port: 5353, wait: 1s500ms}\nlisten: '[::1]:80'\n"
      "cloud: cloud.example.com\ncidrs: [10.96.0.0/12, 'fd00::/108']\nwords: []\nmode: fast\n");

  ASSERT_TRUE(sample) << sample.error().message;
  EXPECT_EQ(sample->name, "5");
  EXPECT_TRUE(sample->on);
  EXPECT_EQ(sample->port, 5353);
  EXPECT_EQ(sample->wait, milliseconds(1500));
  EXPECT_EQ(sample->listen.to_string(), "[::1]:80");
  EXPECT_EQ(sample->cloud.to_string(), "cloud.example.com:10000");
  ASSERT_EQ(sample->cidrs.size(), 2U);
  EXPECT_EQ(sample->cidrs[1].to_string(), "fd00::/108");
  EXPECT_TRUE(sample->words.empty());
  EXPECT_EQ(sample->mode, Mode::kFast);
}

TEST(ConfigReaderTest, AWrongValueIsNamedWithFileLinePathAndWhatIsAllowed) {
  EXPECT_EQ(error_of("name: x\ndns:\n  port: 99999\n"),
            "a.yaml:3: dns.port: '99999' is not allowed (want 1 to 65535)");
  EXPECT_EQ(error_of("on: yes\n"), "a.yaml:1: on: 'yes' is not allowed (want true or false)");
  EXPECT_EQ(error_of("on: 'true'\n"), "a.yaml:1: on: 'true' is not allowed (want true or false)");
  EXPECT_EQ(error_of("dns:\n  wait: 5\n"),
            "a.yaml:2: dns.wait: '5' is not allowed (want 10ms to 1m)");
  EXPECT_EQ(error_of("dns:\n  wait: 2h\n"),
            "a.yaml:2: dns.wait: '2h' is not allowed (want 10ms to 1m)");
  EXPECT_EQ(error_of("listen: here\n"),
            "a.yaml:1: listen: 'here' is not allowed (want an address, or address:port)");
  EXPECT_EQ(error_of("cidrs: [10.96.0.0/12, 10.0.0.1/8]\n"),
            "a.yaml:1: cidrs[1]: '10.0.0.1/8' is not allowed (want a CIDR block such as 10.96.0.0/12)");
  EXPECT_EQ(error_of("mode: slow\n"),
            "a.yaml:1: mode: 'slow' is not allowed (want one of auto, fast)");
  EXPECT_EQ(error_of("dns: 5\n"), "a.yaml:1: dns: a single value is not allowed (want a mapping)");
  EXPECT_EQ(error_of("name: [a]\n"), "a.yaml:1: name: a list is not allowed (want text)");
  EXPECT_EQ(error_of("name:\n"), "a.yaml:1: name: nothing is not allowed (want text)");
}

TEST(ConfigReaderTest, AnUnknownKeyIsNamedWithTheNearestAndAllAllowed) {
  EXPECT_EQ(error_of("dns:\n  prot: 1\n"),
            "a.yaml:2: dns.prot: unknown key; did you mean 'port'? (allowed here: port, wait)");
  EXPECT_NE(error_of("qqqq: 1\n").find("a.yaml:1: qqqq: unknown key (allowed here: name, on, dns"),
            std::string::npos);
}

TEST(ConfigReaderTest, TheFirstProblemByLineIsReported) {
  EXPECT_EQ(error_of("zzz: 1\ndns:\n  port: x\n").substr(0, 12), "a.yaml:1: zz");
  EXPECT_EQ(error_of("on: 7\nzzz: 1\n").substr(0, 12), "a.yaml:1: on");
}

TEST(ConfigReaderTest, WhatMayHideMistakesIsRefused) {
  EXPECT_EQ(error_of("on: true\non: false\n"),
            "a.yaml:2: key 'on' is there twice (first in line 1)");
  EXPECT_NE(error_of("name: &a x\nwords: [*a]\n").find("anchors"), std::string::npos);
  EXPECT_NE(error_of("name: !!str x\n").find("tags"), std::string::npos);
  EXPECT_NE(error_of("name: x\n---\nname: y\n").find("second document"), std::string::npos);
  EXPECT_NE(error_of("- a\n- b\n").find("want a mapping"), std::string::npos);
  EXPECT_NE(error_of("name: [\n").find("not valid YAML"), std::string::npos);
  EXPECT_NE(error_of(std::string(2000, '[')).find("a.yaml"), std::string::npos);
  EXPECT_NE(error_of(std::string(Limits().max_bytes + 1, '#')).find("larger"), std::string::npos);
}

TEST(ConfigReaderTest, ControlCharactersDoNotReachTheErrorLine) {
  EXPECT_EQ(error_of("mode: \"a\\nb\\x1b\"\n"),
            "a.yaml:1: mode: 'a?b?' is not allowed (want one of auto, fast)");
}

TEST(ConfigReaderTest, SectionsWithFreeNamesAndLists) {
  auto document = Document::from_text("modules:\n  a: {enable: false}\n  b: {}\nlist:\n- x: 1\n- y: 2\n", "f");
  ASSERT_TRUE(document);
  Reader root = document->root();
  int disabled = 0;
  for (auto& [name, reader] : root.named_sections("modules")) {
    bool enable = true;
    reader.read("enable", &enable);
    if (!enable) disabled += name == "a" ? 1 : 100;
  }
  int sum = 0;
  for (Reader& item : root.sections("list")) {
    int x = 0;
    item.read("x", &x);
    sum += x;
  }
  EXPECT_EQ(disabled, 1);
  EXPECT_EQ(sum, 1);
  auto finished = document->finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().message, "f:6: list[1].y: unknown key; did you mean 'x'? (allowed here: x)");
}

TEST(ConfigReaderTest, RequiredKeysAndTheCallersOwnChecks) {
  auto document = Document::from_text("a: 1\nb: 2\n", "f");
  ASSERT_TRUE(document);
  Reader root = document->root();
  int a = 0;
  root.read("a", &a);
  root.reject("b", "is of no use");
  root.require("c");
  auto finished = document->finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().message, "f:1: c: is missing");
}

TEST(ConfigReaderTest, AFileThatIsNotThereIsNamed) {
  test::TempDir dir;
  auto missing = Document::from_file(dir.path() + "/none.yaml");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message, dir.path() + "/none.yaml: No such file or directory");
  EXPECT_FALSE(Document::from_file(dir.path()));
}

TEST(DurationTest, ReadsWhatItWrites) {
  for (const Duration value : {Duration(milliseconds(250)), Duration(seconds(5)), Duration(minutes(90)),
                               Duration(hours(24 * 365)), Duration(1), Duration::zero()}) {
    const std::string text = format_duration(value);
    EXPECT_EQ(parse_duration(text).value(), value) << text;
  }
  EXPECT_EQ(format_duration(minutes(90)), "1h30m");
  EXPECT_EQ(parse_duration("1d").value(), hours(24));
  for (const char* bad : {"", "5", "s", "-5s", "5 s", "1.5s", "99999999999999999999s", "9999999999h", "5x"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
}

TEST(HostPortTest, NamesAddressesAndPorts) {
  EXPECT_EQ(HostPort::parse("cloud:1").value(), (HostPort{"cloud", 1}));
  EXPECT_EQ(HostPort::parse("cloud", 7).value(), (HostPort{"cloud", 7}));
  EXPECT_EQ(HostPort::parse("[fd00::1]:9").value(), (HostPort{"fd00::1", 9}));
  EXPECT_EQ(HostPort::parse("fd00::1", 7).value(), (HostPort{"fd00::1", 7}));
  EXPECT_EQ(HostPort::parse("[fd00::1]:9")->to_string(), "[fd00::1]:9");
  for (const char* bad : {"", "cloud", "cloud:", ":1", "cloud:0", "cloud:65536", "cloud:1x", "a b:1",
                          "[fd00::1", "[cloud]:1", "[fd00::1]9", "http://cloud:1", "a:b:c"})
    EXPECT_FALSE(HostPort::parse(bad)) << bad;
}

}  // namespace
}  // namespace edgemesh::config
