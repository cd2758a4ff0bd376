#include "core/config/reader.h"

#include <gtest/gtest.h>

namespace edgemesh::config {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

struct Sample {
  std::string name = "default";
  int port = 53;
  bool on = false;
  Duration wait = seconds(1);
  SockAddr listen;
  std::vector<Cidr> cidrs;
  enum class Mode { kA, kB } mode = Mode::kA;
};

Result<Sample> parse(std::string_view text) {
  EM_TRY(auto document, Document::from_text(text, "f.yaml"));
  Sample out;
  Reader root(document);
  root.read("name", &out.name).read("cidrs", &out.cidrs);
  root.section("dns")
      .read("port", &out.port, 0, 65535)
      .read("on", &out.on)
      .read("wait", &out.wait, milliseconds(10), minutes(1))
      .read("listen", &out.listen)
      .read_enum("mode", &out.mode, {{"a", Sample::Mode::kA}, {"b", Sample::Mode::kB}});
  EM_TRY_VOID(root.finish());
  return out;
}

TEST(ReaderTest, ReadsValuesAndKeepsDefaults) {
  auto got = parse("name: x\ncidrs: [10.0.0.0/8, 'fd00::/8']\ndns:\n  wait: 250ms\n  listen: '[::1]:53'\n  mode: b\n  on: true\n");
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->name, "x");
  EXPECT_EQ(got->port, 53);
  EXPECT_TRUE(got->on);
  EXPECT_EQ(got->wait, milliseconds(250));
  EXPECT_EQ(got->listen.to_string(), "[::1]:53");
  EXPECT_EQ(got->cidrs.size(), 2u);
  EXPECT_EQ(got->mode, Sample::Mode::kB);
  EXPECT_TRUE(parse("")) << "an empty file is all defaults";
}

struct Bad {
  const char* text;
  const char* message;
};
class ReaderErrorTest : public ::testing::TestWithParam<Bad> {};

TEST_P(ReaderErrorTest, NamesFileLineKeyAndWhatIsAllowed) {
  auto got = parse(GetParam().text);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().message, GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All, ReaderErrorTest,
    ::testing::Values(
        Bad{"dns:\n  port: 99999\n", "f.yaml:2: dns.port: '99999' is not allowed (want 0 to 65535)"},
        Bad{"dns:\n  port: 5x\n", "f.yaml:2: dns.port: '5x' is not allowed (want 0 to 65535)"},
        Bad{"dns:\n  on: yes\n", "f.yaml:2: dns.on: 'yes' is not allowed (want true or false)"},
        Bad{"dns:\n  mode: c\n", "f.yaml:2: dns.mode: 'c' is not allowed (want a or b)"},
        Bad{"dns:\n  wait: 5\n",
            "f.yaml:2: dns.wait: '5' is not allowed (want 10ms to 1m, as in 250ms, 5s, 10m or 1h)"},
        Bad{"dns:\n  wait: 2h\n",
            "f.yaml:2: dns.wait: '2h' is not allowed (want 10ms to 1m, as in 250ms, 5s, 10m or 1h)"},
        Bad{"cidrs: [10.0.0.1/8]\n",
            "f.yaml:1: cidrs: '10.0.0.1/8' is not allowed (want a CIDR block, as in 10.96.0.0/12)"},
        Bad{"cidrs: 10.0.0.0/8\n", "f.yaml:1: cidrs: is not a list (want a list of CIDR blocks)"},
        Bad{"name: [a]\n", "f.yaml:1: name: is a list or a mapping (want text)"},
        Bad{"dns: 5\n", "f.yaml:1: dns: is not a section (want 'key: value' lines below it)"},
        Bad{"dns:\n  prot: 1\n",
            "f.yaml:2: dns.prot: unknown key (did you mean 'port'? allowed: listen, mode, on, port, wait)"},
        Bad{"x:\n", "f.yaml:1: x: unknown key (allowed: cidrs, dns, name)"}));

TEST(ReaderTest, RefusesWhatIsNoMapping) {
  EXPECT_FALSE(parse("- a\n"));
  EXPECT_FALSE(parse("a: [1\n"));
  EXPECT_FALSE(parse("just text"));
}

TEST(ReaderTest, AnAliasBombIsRefused) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 12; ++i) {
    std::string line = fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) line += fmt::format("{}*a{}", j == 0 ? "" : ",", i - 1);
    bomb += line + "]\n";
  }
  EXPECT_FALSE(parse(bomb));
}

}  // namespace
}  // namespace edgemesh::config
