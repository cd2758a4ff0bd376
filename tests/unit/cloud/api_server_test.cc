#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

constexpr const char* kTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

TEST_F(ApiServerTest, HealthNeedsNoCredentialsAndTheRestDoes) {
  token_ = "wrong";

  EXPECT_EQ(send("GET", "/healthz").body, "ok");
  EXPECT_EQ(send("GET", "/readyz").status, 200);
  auto refused = send("GET", "/api/v1/namespaces");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(json::parse(refused.body)["reason"], "Unauthorized");
}

TEST_F(ApiServerTest, NodesMayReadServicesAndOnlyTheirOwnNode) {
  ASSERT_EQ(send("POST", kPath, service("web")).status, 201);
  for (const char* node : {"n1", "n2"}) {
    ASSERT_EQ(send("POST", "/api/v1/nodes", json({{"metadata", {{"name", node}}}}).dump()).status,
              201);
  }
  token_ = "node-token";

  EXPECT_EQ(send("GET", "/api/v1/services").status, 200);
  EXPECT_EQ(send("GET", "/apis/discovery.k8s.io/v1/endpointslices").status, 200);
  EXPECT_EQ(send("GET", "/api/v1/nodes/n1").status, 200);
  EXPECT_EQ(send("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1").status, 200);
  EXPECT_EQ(send("GET", "/api").status, 200);
  EXPECT_EQ(send("GET", "/api/v1/nodes/n2").status, 403);
  EXPECT_EQ(send("GET", "/api/v1/nodes/n2?fieldSelector=metadata.name%3Dn1").status, 403);
  EXPECT_EQ(send("GET", "/api/v1/nodes/n2?watch=true&fieldSelector=metadata.name%3Dn1").status,
            403);
  EXPECT_EQ(send("GET", "/api/v1/nodes").status, 403);
  EXPECT_EQ(send("GET", "/api/v1/secrets").status, 403);
  EXPECT_EQ(send("DELETE", "/api/v1/nodes/n1").status, 403);
  EXPECT_EQ(send("POST", kPath, service("x")).status, 403);
  token_ = "other-token";
  auto refused = send("GET", "/api/v1/services");
  EXPECT_EQ(refused.status, 403);
  EXPECT_NE(refused.body.find("somebody"), std::string::npos);
}

TEST_F(ApiServerTest, CreateFillsInDefaultsAndAnAddress) {
  auto created = send("POST", kPath, service("web"));

  ASSERT_EQ(created.status, 201) << created.body;
  json object = json::parse(created.body);
  auto ip = IpAddr::parse(object["spec"]["clusterIP"].get<std::string>());
  ASSERT_TRUE(ip);
  EXPECT_TRUE(Cidr::parse("10.96.0.0/16")->contains(*ip));
  EXPECT_EQ(object["spec"]["type"], "ClusterIP");
  EXPECT_EQ(object["spec"]["sessionAffinity"], "None");
  EXPECT_EQ(object["spec"]["ports"][0]["protocol"], "TCP");
  EXPECT_EQ(object["spec"]["ports"][0]["targetPort"], 80);
  EXPECT_FALSE(object["metadata"]["uid"].get<std::string>().empty());
  EXPECT_EQ(get(std::string(kPath) + "/web"), object);
}

TEST_F(ApiServerTest, RefusesWithReasonsThatClientsKnow) {
  ASSERT_EQ(send("POST", kPath, service("web")).status, 201);
  struct Row {
    const char* method;
    std::string target, body;
    int status;
    const char* reason;
  };
  std::string none = "/api/v1/namespaces/none/services";
  const std::vector<Row> rows = {
      {"POST", kPath, service("web"), 409, "AlreadyExists"},
      {"POST", kPath, service("Bad_Name"), 422, "Invalid"},
      {"POST", kPath, service("x", 70000), 422, "Invalid"},
      {"POST", none, service("x"), 404, "NotFound"},
      {"POST", kPath, "{", 400, "BadRequest"},
      {"POST", kPath, "[]", 400, "BadRequest"},
      {"POST", kPath, R"({"kind":"Pod","metadata":{"name":"x"}})", 400, "BadRequest"},
      {"POST", kPath, R"({"metadata":{"name":"x"},"spec":{"ports":{}}})", 400, "BadRequest"},
      {"POST", kPath, R"({"metadata":{"name":"x","labels":{"a":1}}})", 400, "BadRequest"},
      {"POST", kPath, R"({"metadata":{"name":"x","namespace":"other"}})", 400, "BadRequest"},
      {"POST", std::string(kPath) + "?fieldValidation=Strict",
       R"({"metadata":{"name":"x"},"spec":{"prots":[]}})", 400, "BadRequest"},
      {"POST", "/api/v1/namespaces/default/secrets",
       R"({"metadata":{"name":"x"},"data":"x","stringData":{"a":"b"}})", 400, "BadRequest"},
      {"PATCH", std::string(kPath) + "/web", "", 415, "UnsupportedMediaType"},
      {"GET", std::string(kPath) + "/nothing", "", 404, "NotFound"},
      {"GET", "/api/v1/gadgets", "", 404, "NotFound"},
      {"GET", std::string(kPath) + "?labelSelector=a%20b", "", 400, "BadRequest"},
      {"GET", std::string(kPath) + "?fieldSelector=spec.nothing%3Dx", "", 400, "BadRequest"},
      {"GET", std::string(kPath) + "?continue=x", "", 400, "BadRequest"},
      {"GET", std::string(kPath) + "?resourceVersion=x", "", 400, "BadRequest"},
      {"GET", std::string(kPath) + "?resourceVersion=999999", "", 504, "Timeout"},
      {"GET", std::string(kPath) + "?watch=1&sendInitialEvents=true", "", 422, "Invalid"},
      {"GET", std::string(kPath) + "?sendInitialEvents=true", "", 422, "Invalid"},
      {"GET", std::string(kPath) + "?resourceVersionMatch=Exact", "", 422, "Invalid"},
      {"GET", std::string(kPath) + "?resourceVersion=0&resourceVersionMatch=Exact", "", 422,
       "Invalid"},
      {"GET", std::string(kPath) + "?resourceVersion=1&resourceVersionMatch=Odd", "", 422,
       "Invalid"},
      {"GET", std::string(kPath) + "?resourceVersion=1&continue=2/x", "", 400, "BadRequest"},
      {"GET", std::string(kPath) + "?watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
       "", 422, "Invalid"},
      {"GET", std::string(kPath) + "?watch=1&resourceVersion=999999", "", 504, "Timeout"},
      {"DELETE", std::string(kPath) + "/web", R"({"propagationPolicy":"Sideways"})", 422,
       "Invalid"},
      {"GET", std::string(kPath) + "/web/scale", "", 404, "NotFound"},
      {"POST", std::string(kPath) + "?fieldValidation=Strict",
       R"({"metadata":{"name":"x","name":"y"},"spec":{"ports":[{"port":1}]}})", 400, "BadRequest"},
      {"PUT", std::string(kPath) + "/nothing", service("nothing"), 404, "NotFound"},
      {"PUT", std::string(kPath) + "/web", service("other"), 400, "BadRequest"},
      {"PATCH", std::string(kPath) + "/web", "{}", 415, "UnsupportedMediaType"},
      {"DELETE", std::string(kPath) + "/nothing", "", 404, "NotFound"},
      {"DELETE", "/api/v1/namespaces/default", "", 403, "Forbidden"},
      {"POST", std::string(kPath) + "/web", "{}", 405, "MethodNotAllowed"},
  };
  for (const Row& row : rows) {
    auto answer = send(row.method, row.target, row.body);
    EXPECT_EQ(answer.status, row.status) << row.method << " " << row.target << " " << answer.body;
    json status = json::parse(answer.body, nullptr, false);
    EXPECT_EQ(status.value("kind", ""), "Status") << answer.body;
    EXPECT_EQ(status.value("reason", ""), row.reason) << answer.body;
  }
}

TEST_F(ApiServerTest, UpdateNeedsTheNewestVersion) {
  json object = json::parse(send("POST", kPath, service("web")).body);
  json stale = object;
  object["metadata"]["labels"] = {{"a", "b"}};
  ASSERT_EQ(send("PUT", std::string(kPath) + "/web", object.dump()).status, 200);

  auto conflict = send("PUT", std::string(kPath) + "/web", stale.dump());
  stale["metadata"].erase("resourceVersion");
  auto unconditional = send("PUT", std::string(kPath) + "/web", stale.dump());

  EXPECT_EQ(conflict.status, 409);
  EXPECT_EQ(json::parse(conflict.body)["reason"], "Conflict");
  EXPECT_EQ(unconditional.status, 200);
}

TEST_F(ApiServerTest, ClusterAddressCannotChangeAndIsFreedOnDelete) {
  json object = json::parse(send("POST", kPath, service("web")).body);
  std::string ip = object["spec"]["clusterIP"];
  json wanted = json::parse(service("second"));
  wanted["spec"]["clusterIP"] = ip;

  json patch = {{"spec", {{"clusterIP", "10.96.0.5"}}}};
  EXPECT_EQ(send("PATCH", std::string(kPath) + "/web", patch.dump(), "application/merge-patch+json")
                .status,
            422);
  EXPECT_EQ(send("POST", kPath, wanted.dump()).status, 422);
  ASSERT_EQ(send("DELETE", std::string(kPath) + "/web").status, 200);
  EXPECT_EQ(send("POST", kPath, wanted.dump()).status, 201);
}

TEST_F(ApiServerTest, ThreePatchFormsAndApply) {
  send("POST", kPath, service("web"));
  std::string target = std::string(kPath) + "/web";

  send("PATCH", target,
       R"({"spec":{"ports":[{"port":443,"name":"tls"},{"port":80,"name":"http"}]}})",
       "application/strategic-merge-patch+json");
  send("PATCH", target, R"({"metadata":{"labels":{"a":"1","b":"2"}}})",
       "application/merge-patch+json");
  send("PATCH", target, R"([{"op":"remove","path":"/metadata/labels/a"}])",
       "application/json-patch+json");
  json object = get(target);
  EXPECT_EQ(object["spec"]["ports"].size(), 2U);
  EXPECT_EQ(object["metadata"]["labels"], json({{"b", "2"}}));

  auto apply = [&](const std::string& manager, const std::string& body, const char* more = "") {
    return send("PATCH", target + "?fieldManager=" + manager + more, body,
                "application/apply-patch+yaml");
  };
  EXPECT_EQ(apply("one", "metadata: {name: web, labels: {x: '1', y: '1'}}").status, 200);
  EXPECT_EQ(apply("two", "metadata: {name: web, labels: {x: '2'}}").status, 409);
  EXPECT_EQ(apply("two", "metadata: {name: web, labels: {x: '2'}}", "&force=true").status, 200);
  EXPECT_EQ(apply("one", "metadata: {name: web}").status, 200);
  object = get(target);
  EXPECT_EQ(object["metadata"]["labels"], json({{"b", "2"}, {"x", "2"}}));
}

TEST_F(ApiServerTest, StrangePatchesAreRefusedAndHarmless) {
  send("POST", kPath, service("web"));
  std::string target = std::string(kPath) + "/web";
  const char* merge = "application/merge-patch+json";
  const char* apply = "application/apply-patch+yaml";

  EXPECT_EQ(send("PATCH", target, R"({"metadata":"x"})", merge).status, 400);
  EXPECT_EQ(send("PATCH", target, R"({"metadata":null})", merge).status, 400);
  EXPECT_EQ(send("PATCH", target, R"({"spec":{"ports":"x"}})", merge).status, 400);
  EXPECT_EQ(send("PATCH", target, R"({"spec":[]})", merge).status, 400);
  EXPECT_EQ(send("PATCH", target, "[]", merge).status, 400);
  EXPECT_EQ(send("PATCH", target, R"([{"op":"replace","path":"","value":1}])",
                 "application/json-patch+json")
                .status,
            400);
  EXPECT_EQ(send("PATCH", target + "?fieldManager=a", R"({"metadata":"x"})", apply).status, 400);
  EXPECT_EQ(send("PATCH", target + "new?fieldManager=a", R"({"metadata":7})", apply).status, 400);
  EXPECT_EQ(send("PATCH", target, "{}", apply).status, 400) << "no field manager";
  // Owner records that no server wrote.
  send("PATCH", target, R"({"metadata":{"managedFields":[{"manager":"a","operation":"Apply",
       "fieldsV1":{"x":1,"k:":{},"f:spec":{"k:{":{},"f:ports":"x"}}},7]}})",
       merge);
  EXPECT_EQ(send("PATCH", target + "?fieldManager=a", "metadata: {name: web}", apply).status, 200);

  EXPECT_EQ(get(target)["metadata"]["name"], "web");
}

TEST_F(ApiServerTest, StatusIsWrittenOnlyThroughItsSubresource) {
  send("POST", "/api/v1/nodes", R"({"metadata":{"name":"n1"}})");
  std::string status = R"({"status":{"phase":"x"},"metadata":{"labels":{"a":"b"}}})";

  send("PATCH", "/api/v1/nodes/n1", status, "application/merge-patch+json");
  json by_main = get("/api/v1/nodes/n1");
  send("PATCH", "/api/v1/nodes/n1/status", R"({"status":{"phase":"y"},"spec":{"podCIDR":"z"}})",
       "application/merge-patch+json");
  json by_status = get("/api/v1/nodes/n1");

  EXPECT_EQ(by_main["metadata"]["labels"]["a"], "b");
  EXPECT_EQ(kube::text_at(by_status, "status", "phase"), "y");
  EXPECT_EQ(kube::text_at(by_status, "spec", "podCIDR"), "");
}

TEST_F(ApiServerTest, DryRunStoresNothing) {
  auto created = send("POST", std::string(kPath) + "?dryRun=All", service("web"));

  EXPECT_EQ(created.status, 201);
  EXPECT_EQ(send("GET", std::string(kPath) + "/web").status, 404);
}

TEST_F(ApiServerTest, NamespaceGoesWithAllThatIsInIt) {
  send("POST", "/api/v1/namespaces", R"({"metadata":{"name":"shop"}})");
  send("POST", "/api/v1/namespaces/shop/services", service("web"));
  send("POST", "/api/v1/namespaces/shop/configmaps",
       R"({"metadata":{"name":"held","finalizers":["example.com/hold"]}})");

  ASSERT_EQ(send("DELETE", "/api/v1/namespaces/shop").status, 200);
  settle([&] { return send("GET", "/api/v1/namespaces/shop/services/web").status == 404; });
  EXPECT_EQ(get("/api/v1/namespaces/shop")["status"]["phase"], "Terminating");
  EXPECT_EQ(send("POST", "/api/v1/namespaces/shop/services", service("late")).status, 403);
  send("PATCH", "/api/v1/namespaces/shop/configmaps/held", R"({"metadata":{"finalizers":null}})",
       "application/merge-patch+json");

  settle([&] { return send("GET", "/api/v1/namespaces/shop").status == 404; });
}

TEST_F(ApiServerTest, TablesHaveTheColumnsOfTheKind) {
  send("POST", kPath, service("web"));
  accept_ = kTable;

  json table = get(kPath);

  EXPECT_EQ(table["kind"], "Table");
  EXPECT_EQ(table["columnDefinitions"][2]["name"], "Cluster-IP");
  EXPECT_EQ(table["rows"][0]["cells"][0], "web");
  EXPECT_EQ(table["rows"][0]["cells"][4], "80/TCP");
  EXPECT_EQ(table["rows"][0]["object"]["metadata"]["name"], "web");
  EXPECT_EQ(get(std::string(kPath) + "/web")["rows"].size(), 1U);
}

TEST_F(ApiServerTest, WatchSendsWhatIsThereThenChanges) {
  send("POST", kPath, service("a"));
  watch("/api/v1/services?watch=true");
  settle([&] { return frames_.size() == 1; });
  send("POST", kPath, service("b"));
  send("PATCH", std::string(kPath) + "/a", R"({"metadata":{"labels":{"x":"y"}}})",
       "application/merge-patch+json");
  send("DELETE", std::string(kPath) + "/b");
  settle([&] { return frames_.size() == 4; });

  EXPECT_EQ(seen(), "ADDED a;ADDED b;MODIFIED a;DELETED b;");
  EXPECT_EQ(frames_[3]["object"]["metadata"]["resourceVersion"],
            std::to_string(api_->store().version()));
  call_.reset();
  settle([&] { return api_->server().watches() == 0; });
}

TEST_F(ApiServerTest, WatchListEndsItsFirstPartWithABookmark) {
  send("POST", kPath, service("a"));
  watch(
      "/api/v1/services?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
      "&allowWatchBookmarks=true");
  settle([&] { return frames_.size() == 2; });

  EXPECT_EQ(seen(), "ADDED a;BOOKMARK ;");
  EXPECT_EQ(frames_[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

TEST_F(ApiServerTest, WatchOfAVersionThatIsGoneIsRefusedWith410) {
  for (int i = 0; i < 12; ++i) send("POST", kPath, service("s" + std::to_string(i)));

  auto refused = send("GET", "/api/v1/services?watch=true&resourceVersion=5");

  EXPECT_EQ(refused.status, 410);
  EXPECT_EQ(json::parse(refused.body)["reason"], "Expired");
}

TEST_F(ApiServerTest, DrainEndsWatchesInOrder) {
  watch("/api/v1/services?watch=true");

  api_->server().drain();

  settle([&] { return watch_ended_; });
  EXPECT_EQ(send("GET", "/readyz").status, 503);
  EXPECT_EQ(send("GET", "/api/v1/services?watch=true").status, 429);
}

TEST_F(ApiServerTest, ListsInPages) {
  for (const char* name : {"a", "b", "c"}) send("POST", kPath, service(name));

  json first = get(std::string(kPath) + "?limit=2");
  json second = get(std::string(kPath) + "?limit=2&continue=" +
                    http::percent_encode(first["metadata"]["continue"].get<std::string>()));

  EXPECT_EQ(first["items"].size(), 2U);
  EXPECT_EQ(first["metadata"]["remainingItemCount"], 1);
  EXPECT_EQ(second["items"].size(), 1U);
  EXPECT_FALSE(second["metadata"].contains("continue"));
}

TEST_F(ApiServerTest, DiscoveryNamesAllResources) {
  json core = get("/api/v1");
  json groups = get("/apis");
  accept_ = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
  json aggregated = get("/apis");
  accept_ = "";
  json index = get("/openapi/v3");

  EXPECT_EQ(core["kind"], "APIResourceList");
  EXPECT_EQ(groups["groups"].size(), 19U);
  EXPECT_EQ(groups["groups"][0]["versions"].size(), 1U);
  EXPECT_EQ(aggregated["kind"], "APIGroupDiscoveryList");
  EXPECT_EQ(aggregated["items"][0]["versions"][0]["freshness"], "Current");
  for (const auto& [path, entry] : index["paths"].items()) {
    json document = get(entry["serverRelativeURL"]);
    EXPECT_EQ(document["openapi"], "3.0.0") << path;
  }
  EXPECT_EQ(send("GET", "/apis/nothing/v1").status, 404);
}

TEST_F(ApiServerTest, WhatIsComputedIsReadOnlyAndStoredNowhere) {
  const std::string path = "/apis/metrics.k8s.io/v1beta1";
  EXPECT_EQ(get(path)["resources"][0]["verbs"], json({"get", "list"}));
  // Nobody computes it here.
  EXPECT_EQ(send("GET", path + "/nodes").status, 404);
  EXPECT_EQ(send("POST", path + "/nodes", R"({"metadata":{"name":"a"}})").status, 404);
  EXPECT_EQ(send("DELETE", path + "/namespaces/default/pods/a").status, 404);
}

TEST_F(ApiServerTest, HttpClientAndInformerWorkAgainstIt) {
  KubeConfig config;
  config.server = url("");
  config.token = token_;
  client_ = std::move(*make_http_client(*loop_, config));
  send("POST", kPath, service("a"));
  send("POST", kPath, service("b"));
  kube::Informer::Options options;
  options.type = kube::kServices;
  options.page_size = 1;
  std::string log;
  kube::Informer::Handlers handlers;
  handlers.on_upsert = [&](const kube::Informer::Object& o) { log += "+" + o.name + " "; };
  handlers.on_delete = [&](const kube::Informer::Object& o) { log += "-" + o.name + " "; };
  informer_ = std::make_unique<kube::Informer>(*loop_, *client_, options, std::move(handlers));
  informer_->start();
  settle([&] { return informer_->synced(); });
  int done = 0;
  client_->patch(kube::kServices, "default", "a", kube::PatchKind::kMerge,
                 R"({"metadata":{"labels":{"x":"y"}}})", {}, [&](auto result) {
                   EXPECT_TRUE(result) << result.error().message;
                   ++done;
                 });
  settle([&] { return done == 1; });
  client_->remove(kube::kServices, "default", "b", {}, [&](auto result) {
    EXPECT_TRUE(result) << result.error().message;
    ++done;
  });
  client_->get(kube::kServices, "default", "none", [&](auto result) {
    EXPECT_EQ(result.error().code, ErrorCode::kNotFound);
    ++done;
  });
  client_->create(kube::kServices, "default", service("a"), {}, [&](auto result) {
    EXPECT_EQ(result.error().code, ErrorCode::kAlreadyExists);
    ++done;
  });
  settle([&] { return done == 4 && informer_->objects().size() == 1; });

  EXPECT_EQ(log, "+a +b +a -b ");
}

TEST_F(ApiServerTest, InformerListsAgainWhenItsVersionIsGone) {
  KubeConfig config;
  config.server = url("");
  config.token = token_;
  client_ = std::move(*make_http_client(*loop_, config));
  send("POST", kPath, service("old"));
  kube::Informer::Options options;
  options.type = kube::kServices;
  options.backoff_min = std::chrono::milliseconds(1);
  options.backoff_max = std::chrono::milliseconds(20);
  std::string deleted;
  kube::Informer::Handlers handlers;
  handlers.on_delete = [&](const kube::Informer::Object& o) { deleted += o.name; };
  informer_ = std::make_unique<kube::Informer>(*loop_, *client_, options, std::move(handlers));
  informer_->start();
  settle([&] { return informer_->synced() && api_->server().watches() == 1; });

  // The server goes away; meanwhile more happens than the history holds.
  SockAddr address = server_->local_addr();
  server_.reset();
  api_->server().drain();
  int done = 0;
  api_->client().remove(kube::kServices, "default", "old", {}, [&](auto) { ++done; });
  for (int i = 0; i < 12; ++i) {
    api_->client().create(kube::kServices, "default", service("s" + std::to_string(i)), {},
                          [&](auto) { ++done; });
  }
  settle([&] { return done == 13; });
  http::ServerOptions server;
  server.listen = address;
  auto fresh = ApiServer::create(
      *loop_, api_->core(),
      {.authenticator = make_authenticator({{"admin-token", {"admin", {"system:masters"}}}})});
  auto made = http::Server::create(*loop_, server, [&](http::Request request, auto writer) {
    fresh->handle(std::move(request), std::move(writer));
  });
  ASSERT_TRUE(made) << made.error().message;

  settle([&] { return informer_->objects().size() == 12; });

  EXPECT_EQ(deleted, "old");
  informer_.reset();
  made->reset();
}

TEST(KubeConfigTest, ReadsWhatKubectlReads) {
  auto config = parse_kubeconfig(R"(
apiVersion: v1
kind: Config
current-context: here
clusters:
- {name: c, cluster: {server: "https://10.0.0.1:6443/", certificate-authority-data: aGVsbG8=}}
contexts:
- {name: here, context: {cluster: c, user: u}}
users:
- {name: u, user: {token: abc}}
)",
                                 "/tmp");

  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server, "https://10.0.0.1:6443");
  EXPECT_EQ(config->ca_pem, "hello");
  EXPECT_EQ(config->token, "abc");
}

TEST(KubeConfigTest, SaysWhatIsMissing) {
  auto message = [](const char* text) {
    auto config = parse_kubeconfig(text, "/tmp");
    return config ? std::string() : config.error().message;
  };
  EXPECT_NE(message("{}").find("current-context"), std::string::npos);
  EXPECT_NE(message("current-context: x").find("no context 'x'"), std::string::npos);
  EXPECT_NE(message("a: [").find("line"), std::string::npos);
  EXPECT_NE(message(R"({"current-context":"x","contexts":[{"name":"x","context":{"cluster":"c",
      "user":"u"}}],"clusters":[{"name":"c","cluster":{"server":"https://a"}}],
      "users":[{"name":"u","user":{"exec":{}}}]})")
                .find("'exec', which is not supported"),
            std::string::npos);
  EXPECT_FALSE(load_kubeconfig("/nonexistent/kubeconfig"));
}

}  // namespace
}  // namespace edgemesh::cloud
