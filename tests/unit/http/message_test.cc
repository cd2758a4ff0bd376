#include "core/http/message.h"

#include <gtest/gtest.h>

namespace edgemesh::http {
namespace {

TEST(HeadersTest, NamesCompareWithoutCase) {
  Headers h{{"Content-Type", "text/plain"}};
  h.add("X", "1");
  h.add("x", "2");

  EXPECT_EQ(h.get("content-type"), "text/plain");
  EXPECT_EQ(h.get("X"), "1");
  h.set("x", "3");
  EXPECT_EQ(h.size(), 2u);
  EXPECT_EQ(h.get_or("X", ""), "3");
  h.remove("X");
  EXPECT_FALSE(h.has("x"));
  h.add("Connection", "keep-alive, Upgrade;q=1");
  EXPECT_TRUE(h.has_token("connection", "upgrade"));
  EXPECT_FALSE(h.has_token("connection", "up"));
}

TEST(RequestTest, TakesTheTargetApart) {
  Request r;
  r.target = "/a%20b/c?x=1&y=a+b%2Bc&flag&x=2&bad=%zz";

  EXPECT_EQ(r.path(), "/a b/c");
  EXPECT_EQ(r.query("x"), "1");
  EXPECT_EQ(r.query("y"), "a b+c");
  EXPECT_EQ(r.query("flag"), "");
  EXPECT_FALSE(r.query("bad"));
  EXPECT_FALSE(r.query("z"));
  r.target = "http://host:1/p?q=1";
  EXPECT_EQ(r.path(), "/p");
  EXPECT_EQ(r.query("q"), "1");
  r.target = "*";
  EXPECT_EQ(r.path(), "/");
  r.target = "/%00";
  EXPECT_EQ(r.path(), "/%00");
}

TEST(UrlTest, ParsesWhatItShould) {
  auto url = Url::parse("HTTPS://[::1]:10002/edge.crt?x=1#frag");
  ASSERT_TRUE(url) << url.error().message;
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 10002);
  EXPECT_EQ(url->target, "/edge.crt?x=1");
  EXPECT_EQ(url->authority(), "[::1]:10002");
  EXPECT_EQ(Url::parse("http://a").value().authority(), "a");
  EXPECT_EQ(Url::parse("wss://a?b").value().target, "/?b");
  EXPECT_EQ(Url::parse("wss://a").value().port, 443);
}

TEST(UrlTest, RefusesTheRest) {
  for (const char* text : {"", "a", "ftp://a", "http://", "http://a:0", "http://a:99999",
                           "http://a:b", "http://u@a", "http://[1.2.3.4]", "http://[::1",
                           "http://a b", "http://a/ b", "http://a/\r\n", "http://[::1]x"})
    EXPECT_FALSE(Url::parse(text)) << text;
}

}  // namespace
}  // namespace edgemesh::http
