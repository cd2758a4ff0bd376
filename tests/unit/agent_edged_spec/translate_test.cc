#include "agent/edged/spec/translate.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "agent/edged/spec/labels.h"
#include "agent/edged/spec/quantity.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::Pair;

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

// A pod "web" in "shop" with one container "main"; `spec` and `container` are merged in.
Pod make(Json container = Json::object(), Json spec = Json::object()) {
  Json object = Json::parse(R"({
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
                 "annotations": {"note": "say \"hi\"\nthere"}},
    "spec": {"nodeName": "edge-1", "serviceAccountName": "robot",
             "containers": [{"name": "main", "image": "web:1"}]}})");
  object["spec"]["containers"][0].merge_patch(container);
  object["spec"].merge_patch(spec);
  auto pod = parse_pod(object.dump());
  EXPECT_TRUE(pod) << pod.error().message;
  return *pod;
}

NodeContext node() {
  NodeContext out;
  out.fields.node = "edge-1";
  out.fields.host_ip = "192.0.2.7";
  out.fields.cpu_milli = 4000;
  out.fields.memory_bytes = int64_t(1) << 30;
  out.host_dns = {{"192.0.2.1"}, {"example.org"}, {"rotate"}};
  out.cluster_dns = {"169.254.96.16"};
  return out;
}

Env env_of(const Pod& pod, Objects& objects, const std::vector<std::string>& ips = {"10.1.0.5"}) {
  auto env = container_env(pod, pod.containers[0], node(), ips, objects);
  EXPECT_TRUE(env) << env.error().message;
  return env ? *env : Env{};
}

std::string env_error(const Pod& pod, Objects& objects) {
  auto env = container_env(pod, pod.containers[0], node(), {}, objects);
  EXPECT_FALSE(env);
  return env ? "" : env.error().message;
}

pb::ContainerConfig container_of(const Pod& pod, ContainerInputs inputs = {}) {
  auto config = container_config(pod, pod.containers[0], node(), inputs);
  EXPECT_TRUE(config) << config.error().message;
  return config ? *config : pb::ContainerConfig();
}

TEST(Quantity, Forms) {
  EXPECT_EQ(parse_milli("500m"), 500);
  EXPECT_EQ(parse_milli("2"), 2000);
  EXPECT_EQ(parse_milli("0.1"), 100);
  EXPECT_EQ(parse_milli("100n"), 1);  // rounded up
  EXPECT_EQ(parse_units("1.5Gi"), 1610612736);
  EXPECT_EQ(parse_units("128974848"), 128974848);
  EXPECT_EQ(parse_units("129e6"), 129000000);
  EXPECT_EQ(parse_units("129M"), 129000000);
  EXPECT_EQ(parse_units("1500m"), 2);
  EXPECT_EQ(parse_units("-3"), -3);
  EXPECT_EQ(parse_units("99999999999999999999E"), INT64_MAX);
  for (const char* bad : {"", "x", "1.2.3", "1X", "e5", "1e99", ".", "1 "})
    EXPECT_EQ(parse_units(bad), std::nullopt) << bad;
}

TEST(Expand, References) {
  const Env env{{"A", "1"}, {"B", "$(A)"}};
  EXPECT_EQ(expand("x$(A)y", env), "x1y");
  EXPECT_EQ(expand("$(B)", env), "$(A)");  // once
  EXPECT_EQ(expand("$$(A)", env), "$(A)");
  EXPECT_EQ(expand("$(NONE) $A $(A", env), "$(NONE) $A $(A");
  EXPECT_EQ(expand("end$", env), "end$");
  EXPECT_LT(expand(std::string(1000, 'x') + "$(A)", {{"A", std::string(3 << 20, 'a')}}).size(),
            size_t(5) << 20);
}

TEST(Environment, ComesFromEverywhere) {
  Objects objects;
  objects.all["configmap/shop/c"] = {{"data", {{"k", "v"}, {"bad=name", "x"}, {"OVER", "first"}}}};
  objects.all["secret/shop/s"] = {{"data", {{"pass", "aHVudGVyMg=="}}}};
  const Pod pod = make(Json::parse(R"j({
    "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}},
                {"configMapRef": {"name": "gone", "optional": true}}],
    "env": [{"name": "C_OVER", "value": "second"},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pass"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": true}}},
            {"name": "URL", "value": "http://$(IP):$(PASS)"
},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL2", "value": "http://$(IP)"},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}}],
    "resources": {
  "limits" : {
    "memory" : "100Mi"
  }
}
})j"));
  EXPECT_THAT(env_of(pod, objects),
              ElementsAre(Pair("C_OVER", "second"), Pair("C_k", "v"), Pair("PASS", "hunter2"),
                          Pair("URL", "http://$(IP):hunter2"), Pair("IP", "10.1.0.5"),
                          Pair("URL2", "http://10.1.0.5"), Pair("APP", "web"), Pair("CPU", "4"),
                          Pair("MEM", "100"), Pair("NODE", "edge-1"), Pair("SA", "robot")));
}

TEST(Environment, TellsWhereTheApiIs) {
  Objects objects;
  NodeContext context = node();
  const Pod pod = make({{"env", {{{"name", "URL"}, {"value", "$(KUBERNETES_PORT)"}}}}});
  context.api_service = SockAddr::parse("10.96.0.1:443").value();

  auto env = container_env(pod, pod.containers[0], context, {}, objects);

  ASSERT_TRUE(env);
  EXPECT_THAT(*env, ElementsAre(Pair("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
                                Pair("KUBERNETES_SERVICE_PORT", "443"),
                                Pair("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
                                Pair("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
                                Pair("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
                                Pair("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
                                Pair("KUBERNETES_PORT_443_TCP_PORT", "443"),
                                Pair("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
                                Pair("URL", "tcp://10.96.0.1:443")));
  EXPECT_THAT(env_of(make(), objects), IsEmpty());
}

TEST(Environment, ErrorsReadAsInKubernetes) {
  Objects objects;
  objects.all["configmap/shop/c"] = {{"data", Json::object()}};
  const auto key = [](const char* kind, const char* name) {
    return make(
        {{"env", {{{"name", "X"}, {"valueFrom", {{kind, {{"name", name}, {"key", "k"}}}}}}}}});
  };
  EXPECT_EQ(env_error(key("configMapKeyRef", "x"), objects), "configmap \"x\" not found");
  EXPECT_EQ(env_error(key("secretKeyRef", "x"), objects), "secret \"x\" not found");
  EXPECT_EQ(env_error(key("configMapKeyRef", "c"), objects),
            "couldn't find key k in ConfigMap shop/c");
  EXPECT_EQ(env_error(make({{"envFrom", {{{"secretRef", {{"name", "y"}}}}}}}), objects),
            "secret \"y\" not found");
  EXPECT_THAT(env_error(make({{"env", {{{"name", "A=B"}}}}}), objects), HasSubstr("A=B"));
}

TEST(Environment, VariablesThatRepeatEachOtherHaveALimit) {
  Objects objects;
  Json list = Json::array({{{"name", "V0"}, {"value", std::string(1000, 'x')}}});
  for (int i = 1; i < 20; ++i) {
    const std::string before = fmt::format("$(V{})", i - 1);
    std::string value;
    for (int n = 0; n < 50; ++n) value += before;
    list.push_back({{"name", fmt::format("V{}", i)}, {"value", value}});
  }
  EXPECT_THAT(env_error(make({{"env", list}}), objects), HasSubstr("more than"));
}

TEST(Sandbox, NamesDnsPortsAndCgroup) {
  const Pod pod = make(Json::parse(R"({"ports": [{"containerPort": 80, "hostPort": 8080},
                                                 {"containerPort": 81}]})"),
                       Json::parse(R"({"dnsConfig": {"nameservers": ["192.0.2.9"],
                         "searches": ["extra.example"],
                         "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}})"));
  const auto out = sandbox_config(pod, node(), 3);
  EXPECT_EQ(out.metadata().name(), "web");
  EXPECT_EQ(out.metadata().attempt(), 3u);
  EXPECT_EQ(out.hostname(), "web");
  EXPECT_EQ(out.log_directory(), "/var/log/pods/shop_web_u1");
  EXPECT_THAT(out.dns_config().servers(), ElementsAre("169.254.96.16", "192.0.2.9"));
  EXPECT_THAT(out.dns_config().searches(),
              ElementsAre("shop.svc.cluster.local", "svc.cluster.local", "cluster.local",
                          "example.org", "extra.example"));
  EXPECT_THAT(out.dns_config().options(), ElementsAre("ndots:2", "edns0"));
  ASSERT_EQ(out.port_mappings_size(), 1);
  EXPECT_EQ(out.port_mappings(0).host_port(), 8080);
  EXPECT_EQ(out.port_mappings(0).container_port(), 80);
  EXPECT_EQ(out.labels().at("app"), "web");
  EXPECT_EQ(out.labels().at(kPodUidLabel), "u1");
  EXPECT_EQ(out.annotations().count("note"), 1u);
  EXPECT_EQ(out.linux().cgroup_parent(), "/kubepods/besteffort/podu1");
  const auto& security = out.linux().security_context();
  EXPECT_EQ(security.namespace_options().network(), pb::POD);
  EXPECT_EQ(security.namespace_options().pid(), pb::CONTAINER);
  EXPECT_FALSE(security.privileged());
}

TEST(Sandbox, OnTheHostsNetwork) {
  const Json host{{"hostNetwork", true}, {"hostPID", true}};
  const Json port{{"ports", {{{"containerPort", 80}, {"hostPort", 80}}}}};
  const auto out = sandbox_config(make(port, host), node(), 0);
  EXPECT_EQ(out.hostname(), "");
  EXPECT_EQ(out.port_mappings_size(), 0);
  EXPECT_THAT(out.dns_config().servers(), ElementsAre("192.0.2.1"));
  EXPECT_THAT(out.dns_config().options(), ElementsAre("rotate"));
  const auto& options = out.linux().security_context().namespace_options();
  EXPECT_EQ(options.network(), pb::NODE);
  EXPECT_EQ(options.pid(), pb::NODE);
  Json cluster = host;
  cluster["dnsPolicy"] = "ClusterFirstWithHostNet";
  EXPECT_THAT(sandbox_config(make({}, cluster), node(), 0).dns_config().servers(),
              ElementsAre("169.254.96.16"));
  EXPECT_THAT(sandbox_config(make({}, {{"dnsPolicy", "None"}}), node(), 0).dns_config().servers(),
              IsEmpty());
}

TEST(Sandbox, HostnameAndSubdomain) {
  const auto name = [](Json spec) { return sandbox_config(make({}, spec), node(), 0).hostname(); };
  EXPECT_EQ(name({{"hostname", "db-0"}, {"subdomain", "db"}}), "db-0");
  EXPECT_EQ(name({{"hostname", "db-0"}, {"subdomain", "db"}, {"setHostnameAsFQDN", true}}),
            "db-0.db.shop.svc.cluster.local");
  EXPECT_EQ(name({{"hostname", std::string(62, 'a') + "-b"}}), std::string(62, 'a'));
}

TEST(ResolvConf, Lines) {
  const auto dns = read_resolv_conf(
      "# x\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\r\ndomain a.b\nsearch c.d .  e\noptions "
      "ndots:2 rotate\njunk");
  EXPECT_THAT(dns.servers, ElementsAre("192.0.2.1", "2001:db8::1"));
  EXPECT_THAT(dns.searches, ElementsAre("c.d", "e"));
  EXPECT_THAT(dns.options, ElementsAre("ndots:2", "rotate"));
}

TEST(Resources, ClassesOfService) {
  const Json full{{"cpu", "100m"}, {"memory", "64Mi"}};
  const Pod guaranteed = make({{"resources", {{"limits", full}}}});
  EXPECT_EQ(qos_of(guaranteed), Qos::kGuaranteed);
  EXPECT_EQ(cgroup_of(guaranteed, "/kubepods"), "/kubepods/podu1");
  const auto g = container_of(guaranteed).linux().resources();
  EXPECT_EQ(g.cpu_shares(), 102);
  EXPECT_EQ(g.cpu_quota(), 10'000);
  EXPECT_EQ(g.cpu_period(), 100'000);
  EXPECT_EQ(g.memory_limit_in_bytes(), 64 << 20);
  EXPECT_EQ(g.oom_score_adj(), -997);

  const Pod burstable = make({{"resources", {{"requests", {{"memory", "256Mi"}}}}}});
  EXPECT_EQ(qos_of(burstable), Qos::kBurstable);
  EXPECT_EQ(cgroup_of(burstable, "/k"), "/k/burstable/podu1");
  const auto b = container_of(burstable).linux().resources();
  EXPECT_EQ(b.oom_score_adj(), 750);  // asked for a quarter of the node
  EXPECT_EQ(b.cpu_shares(), 2);
  EXPECT_EQ(b.cpu_quota(), 0);
  EXPECT_EQ(b.memory_limit_in_bytes(), 0);

  const Pod best = make();
  EXPECT_EQ(qos_of(best), Qos::kBestEffort);
  EXPECT_EQ(container_of(best).linux().resources().oom_score_adj(), 1000);
  // An init container with nothing asked makes a guaranteed pod burstable.
  const Pod mixed = make({{"resources", {{"limits", full}}}},
                         {{"initContainers", {{{"name", "i"}, {"image", "i"}}}}});
  EXPECT_EQ(qos_of(mixed), Qos::kBurstable);
}

TEST(Container, CommandEnvAndMarks) {
  const Pod pod = make(Json::parse(R"j({"command": ["run", "$(A)"], "args": ["$$(A)", "-x"],
                                       "workingDir": "/w", "tty": true, "stdin": true})j"));
  pb::Mount mount;
  mount.set_container_path("/data");
  const auto out = container_of(pod, {2, {{"A", "b"}}, {mount}});
  EXPECT_THAT(out.command(), ElementsAre("run", "b"));
  EXPECT_THAT(out.args(), ElementsAre("$(A)", "-x"));
  EXPECT_EQ(out.working_dir(), "/w");
  ASSERT_EQ(out.envs_size(), 1);
  EXPECT_EQ(out.envs(0).value(), "b");
  EXPECT_EQ(out.mounts(0).container_path(), "/data");
  EXPECT_EQ(out.log_path(), "main/2.log");
  EXPECT_TRUE(out.tty());
  EXPECT_TRUE(out.stdin());
  EXPECT_EQ(out.labels().at(kContainerNameLabel), "main");
  EXPECT_EQ(out.annotations().at(kRestartCountAnnotation), "2");
  EXPECT_EQ(out.annotations().at(kContainerHashAnnotation), pod.containers[0].hash);
}

TEST(Container, SecurityOfThePodAndItsOwn) {
  const Pod pod = make(Json::parse(R"({"securityContext": {"runAsUser": 7,
      "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
      "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}})"),
                       Json::parse(R"({"securityContext": {"runAsUser": 5, "runAsGroup": 6,
      "fsGroup": 9, "supplementalGroups": [8], "runAsNonRoot": true}})"));
  const auto out = container_of(pod).linux().security_context();
  EXPECT_EQ(out.run_as_user().value(), 7);
  EXPECT_EQ(out.run_as_group().value(), 6);
  EXPECT_THAT(out.supplemental_groups(), ElementsAre(8, 9));
  EXPECT_TRUE(out.readonly_rootfs());
  EXPECT_TRUE(out.no_new_privs());
  EXPECT_THAT(out.capabilities().add_capabilities(), ElementsAre("NET_ADMIN"));
  EXPECT_THAT(out.capabilities().drop_capabilities(), ElementsAre("ALL"));
  EXPECT_EQ(out.seccomp().profile_type(), pb::SecurityProfile::RuntimeDefault);
  EXPECT_THAT(out.masked_paths(), IsSupersetOf({"/proc/kcore", "/sys/firmware"}));
  EXPECT_THAT(out.readonly_paths(), IsSupersetOf({"/proc/sys"}));

  const Pod root = make({{"securityContext", {{"runAsUser", 0}}}},
                        {{"securityContext", {{"runAsNonRoot", true}}}});
  auto refused = container_config(root, root.containers[0], node(), {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("breaks non-root policy"));
}

TEST(Container, NotAsRootByItsImage) {
  const Pod pod = make({{"securityContext", {{"runAsNonRoot", true}}}});
  const auto error = [&](std::optional<ImageUser> user) {
    ContainerInputs inputs;
    inputs.image_user = std::move(user);
    auto config = container_config(pod, pod.containers[0], node(), inputs);
    return config ? std::string() : config.error().message;
  };
  EXPECT_THAT(error(std::nullopt), HasSubstr("not known yet"));
  EXPECT_THAT(error(ImageUser{}), HasSubstr("image will run as root"));
  EXPECT_THAT(error(ImageUser{0, ""}), HasSubstr("image will run as root"));
  EXPECT_THAT(error(ImageUser{std::nullopt, "web"}), HasSubstr("non-numeric user (web)"));
  EXPECT_EQ(error(ImageUser{1000, ""}), "");
}

TEST(Container, SeccompProfiles) {
  const auto config = [](Json profile, NodeContext context) {
    const Pod pod = make({{"securityContext", {{"seccompProfile", std::move(profile)}}}});
    return container_config(pod, pod.containers[0], context, {});
  };
  NodeContext with = node();
  with.seccomp_root = "/profiles";
  auto local = config({{"type", "Localhost"}, {"localhostProfile", "a/b.json"}}, with);
  ASSERT_TRUE(local);
  EXPECT_EQ(local->linux().security_context().seccomp().localhost_ref(), "/profiles/a/b.json");
  auto open = config({{"type", "Unconfined"}}, with);
  ASSERT_TRUE(open);
  EXPECT_EQ(open->linux().security_context().seccomp().profile_type(),
            pb::SecurityProfile::Unconfined);
  for (const char* bad : {"../x", "a/../../x", "/etc/x", "..", ""})
    EXPECT_FALSE(config({{"type", "Localhost"}, {"localhostProfile", bad}}, with)) << bad;
  EXPECT_FALSE(config({{"type", "Localhost"}, {"localhostProfile", "a"}}, node()));
}

TEST(Container, PrivilegedIsNotConfined) {
  const Pod pod = make({{"securityContext", {{"privileged", true}, {"procMount", "Unmasked"}}}});
  const auto out = container_of(pod).linux().security_context();
  EXPECT_TRUE(out.privileged());
  EXPECT_EQ(out.seccomp().profile_type(), pb::SecurityProfile::Unconfined);
  EXPECT_THAT(out.masked_paths(), IsEmpty());
  EXPECT_TRUE(sandbox_config(pod, node(), 0).linux().security_context().privileged());
}

TEST(Fields, WholeMapsAreLines) {
  auto notes = field_value(make(), "metadata.annotations", {});
  ASSERT_TRUE(notes);
  EXPECT_EQ(*notes, "note=\"say \\\"hi\\\"\\nthere\"");
  EXPECT_FALSE(field_value(make(), "spec.secret", {}));
  EXPECT_FALSE(field_value(make(), "metadata.labels['x", {}));
}

}  // namespace
}  // namespace edgemesh::edged
