// CustomResourceDefinitions and their objects.
#include "cloud/api/custom.h"
#include "cloud/api/custom_schema.h"
#include "cloud/api/json_path.h"
#include "cloud/api/table.h"
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

const kube::ResourceType kCrds{"apiextensions.k8s.io", "v1", "customresourcedefinitions",
                               "CustomResourceDefinition", false};
const kube::ResourceType kGadgets{"example.com", "v1", "gadgets", "Gadget", true};

class ApiCustomTest : public ApiFixture {
 protected:
  static json definition() {
    return json::parse(
        R"({"metadata":{"name":"gadgets.example.com"},"spec":{"group":"example.com","scope":"Namespaced",
      "names":{"plural":"gadgets","kind":"Gadget","shortNames":["gd"]},
      "versions":[{"name":"v1","served":true,"storage":true,
        "subresources":{"status":{},"scale":{"specReplicasPath":".spec.size","statusReplicasPath":".status.size"}},
        "additionalPrinterColumns":[{"name":"Size","type":"integer","jsonPath":".spec.size"},
          {"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}],
        "schema":{"openAPIV3Schema":{"type":"object","properties":{
          "spec":{"type":"object","required":["size"],"properties":{
            "size":{"type":"integer","minimum":1,"maximum":9},
            "mode":{"type":"string","enum":["fast","slow"],"default":"fast"},
            "port":{"x-kubernetes-int-or-string":true},
            "note":{"type":"string","nullable":true},
            "id":{"type":"string","pattern":"^[a-z]+$","maxLength":5},
            "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
            "tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
            "parts":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],
              "items":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},"n":{"type":"integer","default":7}}}}}},
          "status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}},
       {"name":"v1beta1","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object",
          "x-kubernetes-preserve-unknown-fields":true}}}]}})");
  }
  void define() {
    auto done = create(kCrds, "", definition());
    ASSERT_TRUE(done) << done.error().message;
    settle([&] {
      ObjectPtr object = store_->get(info(kCrds), "", "gadgets.example.com");
      return object != nullptr && object->text.find("Established") != std::string::npos;
    });
  }
  ApiResult<ApiCore::Written> gadget(const std::string& name, const std::string& spec) {
    return create(kGadgets, "default",
                  {{"metadata", {{"name", name}}}, {"spec", json::parse(spec)}});
  }
  std::string refused(const std::string& spec) {
    auto done = gadget("bad", spec);
    EXPECT_FALSE(done) << spec;
    return done ? "" : done.error().message;
  }
};

TEST_F(ApiCustomTest, ADefinitionBecomesAResource) {
  define();
  json crd = json::parse(store_->get(info(kCrds), "", "gadgets.example.com")->text);
  EXPECT_EQ(crd["status"]["acceptedNames"]["listKind"], "GadgetList");
  EXPECT_EQ(crd["status"]["storedVersions"], json::parse(R"(["v1"])"));
  EXPECT_EQ(crd["status"]["conditions"][1]["status"], "True");
  const ResourceInfo* info = registry_.find(kGadgets);
  ASSERT_NE(info, nullptr);
  EXPECT_TRUE(info->has_status);
  const ResourceInfo* older = registry_.find("example.com", "v1beta1", "gadgets");
  ASSERT_NE(older, nullptr);
  EXPECT_EQ(&older->stored(), info);
  EXPECT_EQ(older->storage(), info->storage());
}

TEST_F(ApiCustomTest, PrunesDefaultsAndChecks) {
  define();
  auto done = gadget(
      "a",
      R"({"size":3,"what":1,"free":{"x":{"y":1}},"parts":[{"name":"p"}],"note":null,"port":"http"})");
  ASSERT_TRUE(done) << done.error().message;
  json spec = json::parse(done->text)["spec"];
  EXPECT_EQ(
      spec,
      json::parse(
          R"({"size":3,"mode":"fast","free":{"x":{"y":1}},"parts":[{"name":"p","n":7}],"note":null,"port":"http"})"));
  EXPECT_NE(refused("{}").find("spec.size: Required value"), std::string::npos);
  EXPECT_NE(
      refused(R"({"size":"3"})").find("spec.size in body must be of type integer: \"string\""),
      std::string::npos);
  EXPECT_NE(refused(R"({"size":0})").find("should be greater than or equal to 1"),
            std::string::npos);
  EXPECT_NE(refused(R"({"size":10})").find("should be less than or equal to 9"), std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"mode":"odd"})")
                .find("Unsupported value: \"odd\": supported values: \"fast\", \"slow\""),
            std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"id":"A"})").find("should match '^[a-z]+$'"), std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"id":"abcdef"})").find("may not be more than 5"),
            std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"port":1.5})").find("integer,string"), std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"tags":["a","a"]})").find("spec.tags[1]: Duplicate value"),
            std::string::npos);
  EXPECT_NE(refused(R"({"size":1,"parts":[{"name":"x"},{"name":"x"}]})")
                .find("spec.parts[1]: Duplicate value"),
            std::string::npos);
  EXPECT_EQ(unknown_custom_fields(
                *registry_.find(kGadgets),
                json::parse(R"({"spec":{"size":1,"oops":2,"parts":[{"name":"a","z":1}]}})")),
            (std::vector<std::string>{"spec.oops", "spec.parts[0].z"}));
}

TEST_F(ApiCustomTest, StatusAndScaleAreApart) {
  define();
  ASSERT_TRUE(gadget("a", R"({"size":3})"));
  kube::WriteOptions options;
  options.subresource = "scale";
  auto scaled = patch(kGadgets, "default", "a", kube::PatchKind::kMerge,
                      {{"spec", {{"replicas", 5}}}}, options);
  ASSERT_TRUE(scaled) << scaled.error().message;
  EXPECT_EQ(json::parse(scaled->text)["spec"]["replicas"], 5);
  EXPECT_EQ(
      patch(kGadgets, "default", "a", kube::PatchKind::kStrategic, json::object()).error().code,
      415);
  options.subresource = "status";
  auto status = patch(
      kGadgets, "default", "a", kube::PatchKind::kMerge,
      json::parse(
          R"({"spec":{"size":1},"status":{"conditions":[{"type":"Ready","status":"True"}]}})"),
      options);
  ASSERT_TRUE(status) << status.error().message;
  json object = json::parse(status->text);
  EXPECT_EQ(object["spec"]["size"], 5);
  EXPECT_EQ(object["metadata"]["generation"], 2);
  ObjectPtr stored = store_->get(*registry_.find(kGadgets), "default", "a");
  json table = json::parse(table_text(*registry_.find(kGadgets), {stored}, {}));
  EXPECT_EQ(table["columnDefinitions"][1]["name"], "Size");
  EXPECT_EQ(table["rows"][0]["cells"], json::parse(R"(["a",5,"True"])"));
}

TEST_F(ApiCustomTest, ObjectsOutliveARestart) {
  define();
  ASSERT_TRUE(gadget("a", R"({"size":3})"));
  registry_.replace("gadgets.example.com", {});
  open();
  const ResourceInfo* info = registry_.find(kGadgets);
  ASSERT_NE(info, nullptr);
  EXPECT_NE(store_->get(*info, "default", "a"), nullptr);
  EXPECT_TRUE(gadget("b", R"({"size":3})"));
}

TEST_F(ApiCustomTest, DeletingTheDefinitionDeletesItsObjects) {
  define();
  ASSERT_TRUE(gadget("a", R"({"size":3})"));
  ASSERT_TRUE(gadget("b", R"({"size":3})"));
  ASSERT_TRUE(remove(kCrds, "", "gadgets.example.com"));
  settle([&] { return store_->get(info(kCrds), "", "gadgets.example.com") == nullptr; });
  EXPECT_EQ(registry_.find(kGadgets), nullptr);
  define();
  EXPECT_EQ(store_->count(*registry_.find(kGadgets)), 0U);
}

TEST_F(ApiCustomTest, OnlyAChangeOfTheSpecMakesResourcesAnew) {
  define();
  uint64_t revision = registry_.revision();
  ASSERT_TRUE(patch(kCrds, "", "gadgets.example.com", kube::PatchKind::kMerge,
                    json::parse(R"({"metadata":{"labels":{"a":"b"}}})")));
  EXPECT_EQ(registry_.revision(), revision);
  json schema = json::parse(R"({"spec":{"versions":[{"name":"v1","served":true,"storage":true,
    "schema":{"openAPIV3Schema":{"type":"object"}}}]}})");
  ASSERT_TRUE(patch(kCrds, "", "gadgets.example.com", kube::PatchKind::kMerge, schema));
  EXPECT_EQ(registry_.revision(), revision + 1);
  EXPECT_EQ(registry_.find("example.com", "v1beta1", "gadgets"), nullptr);
}

TEST_F(ApiCustomTest, ADefinitionThatEndsTakesNoNewObjects) {
  define();
  json held = {{"metadata", {{"name", "a"}, {"finalizers", {"example.com/x"}}}},
               {"spec", {{"size", 1}}}};
  ASSERT_TRUE(create(kGadgets, "default", held));
  ASSERT_TRUE(remove(kCrds, "", "gadgets.example.com"));
  EXPECT_NE(store_->get(info(kCrds), "", "gadgets.example.com"), nullptr) << "its object stays";
  EXPECT_EQ(gadget("b", R"({"size":1})").error().code, 405);
  ASSERT_TRUE(patch(kGadgets, "default", "a", kube::PatchKind::kMerge,
                    json::parse(R"({"metadata":{"finalizers":null}})")));
  settle([&] { return store_->get(info(kCrds), "", "gadgets.example.com") == nullptr; });
}

TEST_F(ApiCustomTest, AKindNamedLikeABuiltInOneIsNone) {
  json body = definition();
  body["metadata"]["name"] = "services.example.com";
  body["spec"]["names"] = {{"plural", "services"}, {"kind", "Service"}};
  ASSERT_TRUE(create(kCrds, "", body));
  settle([&] { return registry_.find("example.com", "v1", "services") != nullptr; });
  const kube::ResourceType type{"example.com", "v1", "services", "Service", true};
  auto done =
      create(type, "default", json::parse(R"({"metadata":{"name":"a"},"spec":{"size":1}})"));
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_FALSE(json::parse(done->text)["spec"].contains("clusterIP"));
}

TEST_F(ApiCustomTest, RefusesBadDefinitions) {
  json wrong = definition();
  wrong["metadata"]["name"] = "other.example.com";
  EXPECT_NE(
      create(kCrds, "", wrong).error().message.find("must be spec.names.plural+\".\"+spec.group"),
      std::string::npos);
  wrong = definition();
  wrong["spec"]["versions"][1]["storage"] = true;
  EXPECT_NE(create(kCrds, "", wrong).error().message.find("exactly one version marked as storage"),
            std::string::npos);
  wrong = definition();
  wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
       ["id"]["pattern"] = "(";
  EXPECT_NE(create(kCrds, "", wrong).error().message.find("must be a valid regular expression"),
            std::string::npos);
}

TEST_F(ApiCustomTest, ApplyUsesTheSchemasLists) {
  define();
  auto apply = [&](const std::string& manager, const std::string& parts) {
    kube::WriteOptions options;
    options.field_manager = manager;
    return patch(
        kGadgets, "default", "a", kube::PatchKind::kApply,
        {{"metadata", {{"name", "a"}}}, {"spec", {{"size", 3}, {"parts", json::parse(parts)}}}},
        options);
  };
  ASSERT_TRUE(apply("one", R"([{"name":"x"}])"));
  ASSERT_TRUE(apply("two", R"([{"name":"y"}])"));
  auto merged = apply("one", "[]");
  ASSERT_TRUE(merged) << merged.error().message;
  EXPECT_EQ(json::parse(merged->text)["spec"]["parts"], json::parse(R"([{"name":"y","n":7}])"));
}

TEST(JsonPathTest, FindsWhatColumnsNeed) {
  json object = json::parse(R"({"a":{"b.c":[{"k":"x","v":1},{"k":"y","v":2}]}})");
  auto at = [&](const char* path) {
    json out = json::array();
    for (const json* found : json_path(object, path)) out.push_back(*found);
    return out.dump();
  };
  EXPECT_EQ(at(R"(.a.b\.c[1].v)"), "[2]");
  EXPECT_EQ(at(R"(.a['b.c'][*].v)"), "[1,2]");
  EXPECT_EQ(at(R"({.a['b.c'][?(@.k=="y")].v})"), "[2]");
  for (const char* bad : {".x", ".a[", ".a[?(", "[[[", ".a['b.c'][9]", ".a['b.c'][-1]", "..a."}) {
    EXPECT_NO_FATAL_FAILURE(json_path(object, bad)) << bad;
  }
}

}  // namespace
}  // namespace edgemesh::cloud
