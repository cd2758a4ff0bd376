#include "proxy/route/route_table.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

namespace edgemesh::proxy {
namespace {

using model::PathMatch;

model::VirtualHostPtr host(const std::string& name, std::vector<std::string> domains,
                           std::vector<PathMatch> paths = {{}}) {
  auto out = std::make_shared<model::VirtualHost>();
  out->name = name;
  out->domains = std::move(domains);
  for (auto& path : paths) {
    model::Route route;
    route.name = path.path;
    route.match.path = path;
    route.action = model::DirectResponse{};
    out->routes.push_back(std::move(route));
  }
  return out;
}

std::shared_ptr<const RouteTable> table(std::vector<model::VirtualHostPtr> hosts,
                                        const RouteTable* previous = nullptr) {
  auto config = std::make_shared<model::RouteConfig>();
  config->hosts = std::move(hosts);
  auto built = RouteTable::build(config, previous);
  EXPECT_TRUE(built) << built.error().message;
  return built ? *built : nullptr;
}

std::string found(const RouteTable& routes, std::string_view authority) {
  const CompiledHost* one = routes.find_host(authority);
  return one == nullptr ? "" : one->spec().name;
}

TEST(RouteTable, TheMostSpecificDomainCounts) {
  const auto routes = table({host("any", {"*"}), host("suffix", {"*.example"}),
                             host("longer", {"*.a.example"}), host("exact", {"x.a.example"}),
                             host("prefix", {"x.*"}), host("port", {"p.example:8080"})});
  EXPECT_EQ(found(*routes, "X.A.example"), "exact");
  EXPECT_EQ(found(*routes, "y.a.example"), "longer");
  EXPECT_EQ(found(*routes, "y.example"), "suffix");
  EXPECT_EQ(found(*routes, ".example"), "any");  // a wildcard is one character at least
  EXPECT_EQ(found(*routes, "x.test"), "prefix");
  EXPECT_EQ(found(*routes, "p.example:8080"), "port");
  EXPECT_EQ(found(*routes, "other:1"), "any");
}

TEST(RouteTable, ADomainTwiceIsAnError) {
  auto config = std::make_shared<model::RouteConfig>();
  config->hosts = {host("a", {"x"}), host("b", {"x"})};
  EXPECT_FALSE(RouteTable::build(config, nullptr));
}

// The index finds what looking at each route in its order finds.
TEST(RouteTable, TheIndexKeepsTheOrder) {
  std::mt19937 random(7);
  const auto text = [&] {
    std::string out = "/";
    for (size_t n = random() % 6; n > 0; --n) out += "ab/"[random() % 3];
    return out;
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<PathMatch> paths;
    for (size_t n = 8 + random() % 20; n > 0; --n) {
      PathMatch path{static_cast<PathMatch::Kind>(random() % 4), text(), random() % 8 == 0};
      while (path.kind == PathMatch::Kind::kSegmentPrefix && path.path.size() > 1 &&
             path.path.back() == '/')
        path.path.pop_back();
      paths.push_back(std::move(path));
    }
    const auto routes = table({host("h", {"*"}, paths)});
    const auto& all = routes->hosts()[0]->routes();
    for (int i = 0; i < 50; ++i) {
      Head head;
      head.method = "GET";
      head.authority = "x";
      const std::string asked = text() + (random() % 2 == 0 ? "?q" : "");
      head.path = asked;
      const RouteEntry* want = nullptr;
      for (const RouteEntry& entry : all)
        if (want == nullptr && entry.matcher.matches(head, {})) want = &entry;
      ASSERT_EQ(routes->match(head, {}), want) << asked;
    }
  }
}

TEST(RouteTable, AChangeOfOneOfManyHostsBuildsOne) {
  std::vector<model::VirtualHostPtr> hosts;
  for (int i = 0; i < 10'000; ++i)
    hosts.push_back(host(std::to_string(i), {"s" + std::to_string(i) + ".example"}));
  const auto first = table(hosts);
  hosts[77] = host("77", {"s77.example", "more.example"});
  const auto begin = std::chrono::steady_clock::now();
  const auto second = table(hosts, first.get());
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(
                      std::chrono::steady_clock::now() - begin)
                      .count();
  RecordProperty("rebuild_us", static_cast<int>(us));
  EXPECT_EQ(first->hosts()[78], second->hosts()[78]);
  EXPECT_NE(first->hosts()[77], second->hosts()[77]);
  EXPECT_EQ(found(*second, "more.example"), "77");
  EXPECT_EQ(found(*first, "more.example"), "");
  hosts.erase(hosts.begin() + 5);  // all after it move
  const auto third = table(hosts, second.get());
  EXPECT_EQ(found(*third, "s5.example"), "");
  EXPECT_EQ(found(*third, "s9999.example"), "9999");
  EXPECT_EQ(third->hosts()[5], second->hosts()[6]);
}

}  // namespace
}  // namespace edgemesh::proxy
