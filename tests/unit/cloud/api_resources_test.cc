// Kinds of all groups: defaults, validation, subresources, deletion.
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

const kube::ResourceType kDeployments{"apps", "v1", "deployments", "Deployment", true};
const kube::ResourceType kJobs{"batch", "v1", "jobs", "Job", true};
const kube::ResourceType kCronJobs{"batch", "v1", "cronjobs", "CronJob", true};
const kube::ResourceType kBudgets{"policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget",
                                  true};
const kube::ResourceType kPriorities{"scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass",
                                     false};
const kube::ResourceType kClaims{"", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true};
const kube::ResourceType kClasses{"storage.k8s.io", "v1", "storageclasses", "StorageClass", false};

class ApiResourcesTest : public ApiFixture {
 protected:
  json made(const kube::ResourceType& type, const std::string& ns, const std::string& text) {
    auto done = create(type, ns, json::parse(text));
    EXPECT_TRUE(done) << done.error().message;
    return done ? json::parse(done->text) : json();
  }
  std::string refused(const kube::ResourceType& type, const std::string& ns,
                      const std::string& text) {
    auto done = create(type, ns, json::parse(text));
    EXPECT_FALSE(done);
    return done ? "" : done.error().message;
  }
  static std::string deployment(const std::string& spec_more = "",
                                const std::string& pod_more = "") {
    return R"({"metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"app":"web"}})" +
           spec_more +
           R"(,"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"nginx:1.25"}])" +
           pod_more + "}}}}";
  }
  json pod(const std::string& name, const std::string& node = "") {
    json body = json::parse(R"({"spec":{"containers":[{"name":"c","image":"i"}]}})");
    body["metadata"] = {{"name", name}, {"labels", {{"app", "web"}}}};
    if (!node.empty()) body["spec"]["nodeName"] = node;
    auto done = create(kube::kPods, "default", body);
    EXPECT_TRUE(done) << done.error().message;
    return done ? json::parse(done->text) : json();
  }
  void set_ready(const std::string& name) {
    kube::WriteOptions options;
    options.subresource = "status";
    auto done = patch(
        kube::kPods, "default", name, kube::PatchKind::kMerge,
        json::parse(
            R"({"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}})"),
        options);
    EXPECT_TRUE(done) << done.error().message;
  }
  ApiResult<ApiCore::Written> below(const std::string& name, const std::string& sub,
                                    const json& body) {
    kube::WriteOptions options;
    options.subresource = sub;
    return finish([&](ApiCore::Done done) {
      core_->create_below(info(kube::kPods), "default", name, body, options, std::move(done));
    });
  }
};

TEST_F(ApiResourcesTest, DeploymentGetsItsDefaults) {
  json object = made(kDeployments, "default", deployment());
  const json& spec = object["spec"];
  EXPECT_EQ(spec["replicas"], 1);
  EXPECT_EQ(
      spec["strategy"],
      json::parse(
          R"({"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}})"));
  EXPECT_EQ(spec["revisionHistoryLimit"], 10);
  EXPECT_EQ(spec["progressDeadlineSeconds"], 600);
  EXPECT_EQ(object["metadata"]["generation"], 1);
  const json& pod_spec = spec["template"]["spec"];
  EXPECT_EQ(pod_spec["dnsPolicy"], "ClusterFirst");
  EXPECT_EQ(pod_spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
  EXPECT_FALSE(pod_spec.contains("serviceAccountName")) << "of pods only";
  EXPECT_FALSE(pod_spec.contains("enableServiceLinks"));
}

TEST_F(ApiResourcesTest, PodGetsItsDefaults) {
  json object = made(kube::kPods, "default", R"({"metadata":{"name":"p"},"spec":{
    "containers":[{"name":"c","image":"nginx","ports":[{"containerPort":80}],
      "resources":{"limits":{"cpu":1,"memory":"1Gi"}},
      "livenessProbe":{"httpGet":{"port":"http"}}}],
    "volumes":[{"name":"v"},{"name":"m","configMap":{"name":"x"}}]}})");
  const json& spec = object["spec"];
  EXPECT_EQ(spec["restartPolicy"], "Always");
  EXPECT_EQ(spec["terminationGracePeriodSeconds"], 30);
  EXPECT_EQ(spec["serviceAccountName"], "default");
  EXPECT_EQ(spec["priority"], 0);
  EXPECT_EQ(spec["tolerations"].size(), 2U);
  EXPECT_EQ(spec["volumes"][0], json::parse(R"({"name":"v","emptyDir":{}})"));
  EXPECT_EQ(spec["volumes"][1]["configMap"]["defaultMode"], 420);
  const json& container = spec["containers"][0];
  EXPECT_EQ(container["imagePullPolicy"], "Always");
  EXPECT_EQ(container["ports"][0]["protocol"], "TCP");
  EXPECT_EQ(container["resources"]["requests"], json::parse(R"({"cpu":"1","memory":"1Gi"})"));
  EXPECT_EQ(container["livenessProbe"],
            json::parse(R"({"httpGet":{"port":"http","path":"/","scheme":"HTTP"},
    "timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3})"));
  EXPECT_EQ(object["status"]["qosClass"], "Guaranteed");
  EXPECT_EQ(object["status"]["phase"], "Pending");
}

TEST_F(ApiResourcesTest, JobGetsASelectorOfItsOwn) {
  json object = made(kJobs, "default", R"({"metadata":{"name":"j"},"spec":{"template":{"spec":{
    "restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}})");
  std::string uid = object["metadata"]["uid"];
  EXPECT_EQ(object["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
  EXPECT_EQ(object["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
  EXPECT_EQ(object["spec"]["backoffLimit"], 6);
  EXPECT_EQ(object["spec"]["completions"], 1);
  json cron = made(kCronJobs, "default",
                   R"({"metadata":{"name":"c"},"spec":{"schedule":"*/5 * * * *","jobTemplate":{
    "spec":{"template":{"spec":{"restartPolicy":"OnFailure","containers":[{"name":"c","image":"i"}]}}}}}})");
  EXPECT_EQ(cron["spec"]["concurrencyPolicy"], "Allow");
  EXPECT_FALSE(cron["spec"]["jobTemplate"]["spec"].contains("backoffLimit"));
}

TEST_F(ApiResourcesTest, SaysWhatIsWrong) {
  EXPECT_NE(refused(kDeployments, "default", deployment(R"(,"replicas":-1)"))
                .find("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            std::string::npos);
  EXPECT_NE(refused(kDeployments, "default", deployment("", R"(,"restartPolicy":"Never")"))
                .find("supported values: \"Always\""),
            std::string::npos);
  std::string other = deployment();
  other.replace(other.find(R"("labels":{"app":"web"})"), 22, R"("labels":{"app":"abc"})");
  EXPECT_NE(
      refused(kDeployments, "default", other).find("`selector` does not match template `labels`"),
      std::string::npos);
  EXPECT_NE(refused(kDeployments, "default", deployment(R"(,"replicas":"many")"))
                .find("cannot unmarshal string into field spec.replicas"),
            std::string::npos);
  EXPECT_NE(refused(kube::kPods, "default",
                    R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i",
    "volumeMounts":[{"name":"gone","mountPath":"/x"}]}]}})")
                .find("spec.containers[0].volumeMounts[0].name: Not found: \"gone\""),
            std::string::npos);
  EXPECT_NE(refused(kube::kPods, "default",
                    R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i",
    "resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1500m"}}}]}})")
                .find("must be less than or equal to cpu limit of 1500m"),
            std::string::npos);
  EXPECT_NE(refused(kCronJobs, "default",
                    R"({"metadata":{"name":"c"},"spec":{"schedule":"often","jobTemplate":{"spec":{
    "template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}})")
                .find("spec.schedule: Invalid value"),
            std::string::npos);
  EXPECT_NE(
      refused(kube::kPods, "default", R"({"metadata":{"name":"p"},"spec":{"priorityClassName":"x",
    "containers":[{"name":"c","image":"i"}]}})")
          .find("no PriorityClass with name x was found"),
      std::string::npos);
}

TEST_F(ApiResourcesTest, UnknownFieldsAndNullsAreNotStored) {
  json object =
      made(kube::kConfigMaps, "default",
           R"({"metadata":{"name":"c","creationTimestamp":null,"x":1},"data":{"a":"b"},"y":2})");
  EXPECT_FALSE(object.contains("y"));
  EXPECT_FALSE(object["metadata"].contains("x"));
  EXPECT_EQ(object["data"]["a"], "b");
}

TEST_F(ApiResourcesTest, ClassesAreTakenOver) {
  made(kPriorities, "", R"({"metadata":{"name":"high"},"value":1000})");
  json object =
      made(kube::kPods, "default", R"({"metadata":{"name":"p"},"spec":{"priorityClassName":"high",
    "containers":[{"name":"c","image":"i"}]}})");
  EXPECT_EQ(object["spec"]["priority"], 1000);
  made(
      kClasses, "",
      R"({"metadata":{"name":"fast","annotations":{"storageclass.kubernetes.io/is-default-class":"true"}},"provisioner":"p"})");
  json claim = made(
      kClaims, "default",
      R"({"metadata":{"name":"d"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}})");
  EXPECT_EQ(claim["spec"]["storageClassName"], "fast");
  EXPECT_EQ(claim["spec"]["volumeMode"], "Filesystem");
  EXPECT_EQ(claim["status"]["phase"], "Pending");
}

TEST_F(ApiResourcesTest, ScaleReadsAndWritesReplicas) {
  made(kDeployments, "default", deployment());
  kube::WriteOptions options;
  options.subresource = "scale";
  auto scaled = patch(kDeployments, "default", "web", kube::PatchKind::kMerge,
                      {{"spec", {{"replicas", 3}}}}, options);
  ASSERT_TRUE(scaled) << scaled.error().message;
  json scale = json::parse(scaled->text);
  EXPECT_EQ(scale["kind"], "Scale");
  EXPECT_EQ(scale["spec"]["replicas"], 3);
  EXPECT_EQ(scale["status"]["selector"], "app=web");
  json object = json::parse(store_->get(info(kDeployments), "default", "web")->text);
  EXPECT_EQ(object["spec"]["replicas"], 3);
  EXPECT_EQ(object["metadata"]["generation"], 2);
  scale["spec"]["replicas"] = -2;
  EXPECT_EQ(update(kDeployments, "default", scale, options).error().code, 422);
  scale["spec"]["replicas"] = 2;
  scale["metadata"]["resourceVersion"] = "1";
  EXPECT_EQ(update(kDeployments, "default", scale, options).error().code, 409);
}

TEST_F(ApiResourcesTest, BindingPutsAPodOnANodeOnce) {
  pod("p");
  auto bound =
      below("p", "binding",
            json::parse(R"({"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}})"));
  ASSERT_TRUE(bound) << bound.error().message;
  json object = json::parse(store_->get(info(kube::kPods), "default", "p")->text);
  EXPECT_EQ(object["spec"]["nodeName"], "n1");
  EXPECT_EQ(object["status"]["conditions"][0]["type"], "PodScheduled");
  EXPECT_EQ(below("p", "binding", json::parse(R"({"target":{"name":"n2"}})")).error().code, 409);
  EXPECT_EQ(below("q", "binding", json::parse(R"({"target":{"name":"n2"}})")).error().code, 404);
  EXPECT_EQ(below("p", "binding", json::object()).error().code, 422);
}

TEST_F(ApiResourcesTest, EvictionKeepsToTheBudget) {
  for (const char* name : {"a", "b"}) {
    pod(name, "n1");
    set_ready(name);
  }
  made(
      kBudgets, "default",
      R"({"metadata":{"name":"pdb"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"web"}}}})");
  auto first = below("a", "eviction", json::parse(R"({"metadata":{"name":"a"}})"));
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_TRUE(
      json::parse(store_->get(info(kube::kPods), "default", "a")->text)["metadata"].contains(
          "deletionTimestamp"));
  auto second = below("b", "eviction", json::object());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, 429);
  EXPECT_NE(second.error().message.find("disruption budget"), std::string::npos);
}

TEST_F(ApiResourcesTest, GraceOnlyGetsShorterAndTheNodeHasTheLastWord) {
  pod("p", "n1");
  auto marked = remove(kube::kPods, "default", "p");
  ASSERT_TRUE(marked);
  EXPECT_EQ(json::parse(marked->text)["metadata"]["deletionGracePeriodSeconds"], 30);
  ApiCore::Deletion longer, shorter, final;
  longer.grace_s = 60;
  shorter.grace_s = 5;
  final.grace_s = 0;
  EXPECT_EQ(json::parse(remove(kube::kPods, "default", "p", longer)
                            ->text)["metadata"]["deletionGracePeriodSeconds"],
            30);
  EXPECT_EQ(json::parse(remove(kube::kPods, "default", "p", shorter)
                            ->text)["metadata"]["deletionGracePeriodSeconds"],
            5);
  EXPECT_NE(store_->get(info(kube::kPods), "default", "p"), nullptr);
  EXPECT_TRUE(remove(kube::kPods, "default", "p", final)->is_status);
  EXPECT_EQ(store_->get(info(kube::kPods), "default", "p"), nullptr);
}

TEST_F(ApiResourcesTest, ANamespaceThatEndsIsNotGoneBeforeItsContent) {
  made(kube::kNamespaces, "", R"({"metadata":{"name":"shop"}})");
  made(kube::kConfigMaps, "shop", R"({"metadata":{"name":"c","finalizers":["example.com/x"]}})");
  ASSERT_TRUE(remove(kube::kNamespaces, "", "shop"));
  ASSERT_TRUE(patch(kube::kNamespaces, "", "shop", kube::PatchKind::kMerge,
                    json::parse(R"({"metadata":{"labels":{"a":"b"}}})")));
  EXPECT_NE(store_->get(info(kube::kNamespaces), "", "shop"), nullptr);
  ASSERT_TRUE(patch(kube::kConfigMaps, "shop", "c", kube::PatchKind::kMerge,
                    json::parse(R"({"metadata":{"finalizers":null}})")));
  settle([&] { return store_->get(info(kube::kNamespaces), "", "shop") == nullptr; });
}

TEST_F(ApiResourcesTest, PropagationSetsFinalizers) {
  made(kDeployments, "default", deployment());
  ApiCore::Deletion foreground;
  foreground.propagation = "Foreground";
  auto marked = remove(kDeployments, "default", "web", foreground);
  ASSERT_TRUE(marked);
  json object = json::parse(marked->text);
  EXPECT_EQ(object["metadata"]["finalizers"], json::parse(R"(["foregroundDeletion"])"));
  // The garbage collector takes the finalizer away, and with it the object goes.
  auto gone = patch(kDeployments, "default", "web", kube::PatchKind::kMerge,
                    json::parse(R"({"metadata":{"finalizers":null}})"));
  ASSERT_TRUE(gone) << gone.error().message;
  EXPECT_EQ(store_->get(info(kDeployments), "default", "web"), nullptr);
  made(kDeployments, "default", deployment());
  ApiCore::Deletion orphan, background;
  orphan.propagation = "Orphan";
  background.propagation = "Background";
  EXPECT_EQ(json::parse(
                remove(kDeployments, "default", "web", orphan)->text)["metadata"]["finalizers"][0],
            "orphan");
  EXPECT_TRUE(remove(kDeployments, "default", "web", background)) << "changes its mind";
}

}  // namespace
}  // namespace edgemesh::cloud
