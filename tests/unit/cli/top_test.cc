#include "cmd/edgemesh/top.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace edgemesh::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

TrafficSnapshot parse(const json& answer) {
  auto parsed = parse_traffic(answer);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return *parsed;
}

json service(const std::string& name, uint64_t requests, uint64_t errors, json latency) {
  return {{"service", name}, {"requests", requests},  {"errors", errors},
          {"connections", 0}, {"connectionsClosed", 0}, {"bytesReceived", requests * 10},
          {"bytesSent", requests * 2048}, {"latencyUs", std::move(latency)}};
}

TEST(Top, RatesAndQuantilesOfWhatCameBetweenTwoAnswers) {
  const auto before = parse({{"timeUs", 1'000'000},
                             {"services", {service("web.shop:80", 100, 1, {{800, 1000, 100}})}}});
  const auto now = parse(
      {{"timeUs", 3'000'000},
       {"services",
        {service("cart.shop:80", 4, 0, {{2000, 4000, 4}}),
         service("web.shop:80", 300, 11, {{800, 1000, 200}, {10'000, 20'000, 97}, {90'000, 110'000, 3}})}}});
  const auto rows = top_rows(before, now);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].service, "web.shop:80");
  EXPECT_DOUBLE_EQ(rows[0].requests, 100);
  EXPECT_DOUBLE_EQ(rows[0].errors, 5);
  EXPECT_DOUBLE_EQ(rows[0].error_percent, 5);
  EXPECT_DOUBLE_EQ(rows[0].p50_ms, 0.9);  // 100 new ones in the first bucket
  EXPECT_DOUBLE_EQ(rows[0].p99_ms, 100);
  EXPECT_DOUBLE_EQ(rows[0].sent, 204'800);
  EXPECT_DOUBLE_EQ(rows[1].requests, 2);  // it was not there before
  EXPECT_DOUBLE_EQ(rows[1].p50_ms, 3);
}

TEST(Top, BytesOfConnections) {
  json tcp{{"service", "db.shop:5432"}, {"requests", 0},      {"errors", 0},
           {"connections", 5},          {"connectionsClosed", 2}, {"bytesReceived", 1000},
           {"bytesSent", 500},          {"latencyUs", json::array()}};
  const auto before = parse({{"timeUs", 0}, {"services", {tcp}}});
  tcp["connections"] = 7;
  tcp["bytesReceived"] = 3'146'728;
  const auto rows = top_rows(before, parse({{"timeUs", 1'000'000}, {"services", {tcp}}}));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_DOUBLE_EQ(rows[0].received, 3'145'728);
  EXPECT_DOUBLE_EQ(rows[0].connections, 2);
  EXPECT_EQ(rows[0].open, 5u);
  EXPECT_LT(rows[0].p50_ms, 0);
  const std::string text = top_text(rows);
  EXPECT_THAT(text, HasSubstr("3.0 MiB/s"));
  EXPECT_TRUE(top_json(rows)[0]["p99Ms"].is_null());
}

TEST(Top, CountersThatBeganAgain) {
  const auto before = parse({{"timeUs", 0}, {"services", {service("a", 1000, 10, {{8, 16, 1000}})}}});
  const auto now =
      parse({{"timeUs", 1'000'000}, {"services", {service("a", 7, 0, {{8, 16, 7}})}}});
  const auto rows = top_rows(before, now);
  EXPECT_DOUBLE_EQ(rows[0].requests, 7);
  EXPECT_DOUBLE_EQ(rows[0].p50_ms, 0.012);
  EXPECT_TRUE(top_rows(now, before).empty());  // no time passed
}

TEST(Top, AnswersThatAreNone) {
  EXPECT_FALSE(parse_traffic(json::array()));
  EXPECT_FALSE(parse_traffic({{"timeUs", "x"}, {"services", json::array()}}));
  EXPECT_FALSE(parse_traffic({{"timeUs", 1}}));
  const auto odd = parse({{"timeUs", 1},
                          {"services", {1, {{"service", 5}}, {{"service", "s"}, {"requests", -4},
                                        {"latencyUs", {1, {1, 2}, {"a", 2, 3}}}}}}});
  ASSERT_EQ(odd.services.size(), 1u);
  EXPECT_EQ(odd.services.at("s").requests, 0u);
}

TEST(Top, AScreenFitsAndNamesDoNotSteerIt) {
  std::vector<TopRow> rows(50);
  for (auto& row : rows) row.service = "evil\x1b[2Jname";
  const std::string screen = top_screen(rows, "head", 20, 10);
  EXPECT_THAT(screen, Not(HasSubstr("\x1b[2J")));
  EXPECT_EQ(std::count(screen.begin(), screen.end(), '\n'), 9);
  size_t at = 0;
  while (at < screen.size()) {
    const size_t end = screen.find("\x1b[", at);
    if (end == std::string::npos || screen[end + 2] == 'J') break;
    EXPECT_LE(end - at, 20u);
    at = screen.find('\n', end) + 1;
  }
}

}  // namespace
}  // namespace edgemesh::cli
