#include "kube/patch.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace edgemesh::kube {

using nlohmann::json;

struct PatchCase {
  const char* name;
  const char* kind;  // of the object; only for strategic patches
  const char* before;
  const char* patch;
  const char* after;  // null: refused
};
void PrintTo(const PatchCase& value, std::ostream* out) {
  *out << value.name;
}

namespace {

std::string case_name(const testing::TestParamInfo<PatchCase>& info) {
  return info.param.name;
}

void check(const PatchCase& row, Result<> (*apply)(json&, const json&, const char*)) {
  json object = json::parse(row.before);
  auto done = apply(object, json::parse(row.patch), row.kind);
  if (row.after == nullptr) {
    EXPECT_FALSE(done) << object.dump();
    return;
  }
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(object, json::parse(row.after)) << object.dump();
}

class MergePatchTest : public testing::TestWithParam<PatchCase> {};
TEST_P(MergePatchTest, GivesTheResult) {
  check(GetParam(), [](json& o, const json& p, const char*) { return apply_merge_patch(o, p); });
}
INSTANTIATE_TEST_SUITE_P(
    Table, MergePatchTest,
    testing::Values(
        PatchCase{"Sets", "", R"({"a":1})", R"({"b":{"c":2}})", R"({"a":1,"b":{"c":2}})"},
        PatchCase{"NullRemoves", "", R"({"a":1,"b":{"c":2,"d":3}})", R"({"b":{"c":null}})",
                  R"({"a":1,"b":{"d":3}})"},
        PatchCase{"ListsAreReplaced", "", R"({"a":[1,2]})", R"({"a":[3]})", R"({"a":[3]})"},
        PatchCase{"NullsInNewObjectsAreDropped", "", R"({})", R"({"a":{"b":null,"c":1}})",
                  R"({"a":{"c":1}})"},
        PatchCase{"ObjectReplacesScalar", "", R"({"a":1})", R"({"a":{"b":1}})", R"({"a":{"b":1}})"},
        PatchCase{"MustBeAnObject", "", R"({})", R"([1])", nullptr}),
    case_name);

class JsonPatchTest : public testing::TestWithParam<PatchCase> {};
TEST_P(JsonPatchTest, GivesTheResult) {
  check(GetParam(), [](json& o, const json& p, const char*) { return apply_json_patch(o, p); });
}
INSTANTIATE_TEST_SUITE_P(
    Table, JsonPatchTest,
    testing::Values(
        PatchCase{"AddMember", "", R"({"a":{}})", R"([{"op":"add","path":"/a/b","value":1}])",
                  R"({"a":{"b":1}})"},
        PatchCase{"AddInsertsIntoList", "", R"({"a":[1,3]})",
                  R"([{"op":"add","path":"/a/1","value":2},{"op":"add","path":"/a/-","value":4}])",
                  R"({"a":[1,2,3,4]})"},
        PatchCase{"Remove", "", R"({"a":[1,2],"b":1})",
                  R"([{"op":"remove","path":"/a/0"},{"op":"remove","path":"/b"}])", R"({"a":[2]})"},
        PatchCase{"Replace", "", R"({"a":1})", R"([{"op":"replace","path":"/a","value":[]}])",
                  R"({"a":[]})"},
        PatchCase{"Move", "", R"({"a":{"b":1},"c":{}})",
                  R"([{"op":"move","from":"/a/b","path":"/c/d"}])", R"({"a":{},"c":{"d":1}})"},
        PatchCase{"Copy", "", R"({"a":{"b":1}})", R"([{"op":"copy","from":"/a","path":"/c"}])",
                  R"({"a":{"b":1},"c":{"b":1}})"},
        PatchCase{"EscapedNames", "", R"({"a/b":{"m~n":1}})",
                  R"([{"op":"replace","path":"/a~1b/m~0n","value":2}])", R"({"a/b":{"m~n":2}})"},
        PatchCase{"TestPasses", "", R"({"a":1})",
                  R"([{"op":"test","path":"/a","value":1},{"op":"remove","path":"/a"}])", R"({})"},
        PatchCase{"TestFails", "", R"({"a":1})", R"([{"op":"test","path":"/a","value":2}])",
                  nullptr},
        PatchCase{"RemoveOfNothing", "", R"({})", R"([{"op":"remove","path":"/a"}])", nullptr},
        PatchCase{"IndexBeyondTheEnd", "", R"({"a":[]})",
                  R"([{"op":"add","path":"/a/1","value":1}])", nullptr},
        PatchCase{"LeadingZero", "", R"({"a":[1,2]})", R"([{"op":"remove","path":"/a/01"}])",
                  nullptr},
        PatchCase{"MoveIntoItself", "", R"({"a":{"b":1}})",
                  R"([{"op":"move","from":"/a","path":"/a/b"}])", nullptr},
        PatchCase{"UnknownOperation", "", R"({})", R"([{"op":"bump","path":"/a"}])", nullptr},
        PatchCase{"NotAList", "", R"({})", R"({})", nullptr}),
    case_name);

TEST(JsonPatchLimitTest, StopsCopiesThatGrowWithoutBound) {
  json object = {{"a", {std::string(1000, 'x')}}};
  json patch = json::array();
  for (int i = 0; i < 40; ++i) {
    patch.push_back({{"op", "copy"}, {"from", "/a"}, {"path", "/a/-"}});
  }

  auto done = apply_json_patch(object, patch);

  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kResourceExhausted);
}

class StrategicPatchTest : public testing::TestWithParam<PatchCase> {};
TEST_P(StrategicPatchTest, GivesTheResult) {
  check(GetParam(),
        [](json& o, const json& p, const char* kind) { return apply_strategic_patch(o, p, kind); });
}
INSTANTIATE_TEST_SUITE_P(
    Table, StrategicPatchTest,
    testing::Values(
        PatchCase{"ContainerIsFoundByName", "Pod",
                  R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"}]}})",
                  R"({"spec":{"containers":[{"name":"b","image":"3"}]}})",
                  R"({"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"3"}]}})"},
        PatchCase{"NewContainerComesFirst", "Deployment",
                  R"({"spec":{"template":{"spec":{"containers":[{"name":"a"}]}}}})",
                  R"({"spec":{"template":{"spec":{"containers":[{"name":"z"}]}}}})",
                  R"({"spec":{"template":{"spec":{"containers":[{"name":"z"},{"name":"a"}]}}}})"},
        PatchCase{"DeleteByKey", "Pod", R"({"spec":{"containers":[{"name":"a"},{"name":"b"}]}})",
                  R"({"spec":{"containers":[{"$patch":"delete","name":"a"}]}})",
                  R"({"spec":{"containers":[{"name":"b"}]}})"},
        PatchCase{"ReplaceList", "Pod", R"({"spec":{"containers":[{"name":"a"},{"name":"b"}]}})",
                  R"({"spec":{"containers":[{"$patch":"replace"},{"name":"c"}]}})",
                  R"({"spec":{"containers":[{"name":"c"}]}})"},
        PatchCase{"ReplaceMap", "Service", R"({"spec":{"selector":{"a":"1","b":"2"}}})",
                  R"({"spec":{"selector":{"$patch":"replace","c":"3"}}})",
                  R"({"spec":{"selector":{"c":"3"}}})"},
        PatchCase{"NestedEnv", "Pod",
                  R"({"spec":{"containers":[{"name":"a","env":[{"name":"X","value":"1"},
                     {"name":"Y","value":"2"}]}]}})",
                  R"({"spec":{"containers":[{"name":"a","env":[{"name":"Y","value":"3"}]}]}})",
                  R"({"spec":{"containers":[{"name":"a","env":[{"name":"X","value":"1"},
                     {"name":"Y","value":"3"}]}]}})"},
        PatchCase{"ServicePortsByPort", "Service",
                  R"({"spec":{"ports":[{"port":80,"name":"http"},{"port":443,"name":"https"}]}})",
                  R"({"spec":{"ports":[{"port":443,"targetPort":8443}]}})",
                  R"({"spec":{"ports":[{"port":80,"name":"http"},
                     {"port":443,"name":"https","targetPort":8443}]}})"},
        PatchCase{
            "ContainerPortsByContainerPort", "Pod",
            R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":1}]}]}})",
            R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":1,"name":"x"}]}]}})",
            R"({"spec":{"containers":[{"name":"a","ports":[{"containerPort":1,"name":"x"}]}]}})"},
        PatchCase{"ConditionsByType", "Node",
                  R"({"status":{"conditions":[{"type":"Ready","status":"True"}]}})",
                  R"({"status":{"conditions":[{"type":"Ready","status":"False"}]}})",
                  R"({"status":{"conditions":[{"type":"Ready","status":"False"}]}})"},
        PatchCase{"FinalizersAreASet", "Service", R"({"metadata":{"finalizers":["a","b"]}})",
                  R"({"metadata":{"finalizers":["b","c"]}})",
                  R"({"metadata":{"finalizers":["a","b","c"]}})"},
        PatchCase{"DeleteFromSet", "Service", R"({"metadata":{"finalizers":["a","b"]}})",
                  R"({"metadata":{"$deleteFromPrimitiveList/finalizers":["a"]}})",
                  R"({"metadata":{"finalizers":["b"]}})"},
        PatchCase{"TaintsAreReplaced", "Node", R"({"spec":{"taints":[{"key":"a"}]}})",
                  R"({"spec":{"taints":[{"key":"b"}]}})", R"({"spec":{"taints":[{"key":"b"}]}})"},
        PatchCase{
            "RetainKeys", "Deployment",
            R"({"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}})",
            R"({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}})",
            R"({"spec":{"strategy":{"type":"Recreate"}}})"},
        PatchCase{"VolumeRetainKeys", "Pod", R"({"spec":{"volumes":[{"name":"v","emptyDir":{}}]}})",
                  R"({"spec":{"volumes":[{"$retainKeys":["name","hostPath"],"name":"v",
                     "hostPath":{"path":"/x"}}]}})",
                  R"({"spec":{"volumes":[{"name":"v","hostPath":{"path":"/x"}}]}})"},
        PatchCase{
            "SetElementOrder", "Pod",
            R"({"spec":{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}})",
            R"({"spec":{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}],
                     "containers":[{"name":"a","image":"1"}]}})",
            R"({"spec":{"containers":[{"name":"b"},{"name":"c"},{"name":"a","image":"1"}]}})"},
        PatchCase{"NullRemoves", "Service", R"({"spec":{"a":1,"b":2}})", R"({"spec":{"a":null}})",
                  R"({"spec":{"b":2}})"},
        PatchCase{"UnknownKindReplacesLists", "Gadget", R"({"spec":{"containers":[{"name":"a"}]}})",
                  R"({"spec":{"containers":[{"name":"b"}]}})",
                  R"({"spec":{"containers":[{"name":"b"}]}})"},
        PatchCase{"ElementWithoutItsKey", "Pod", R"({"spec":{"containers":[]}})",
                  R"({"spec":{"containers":[{"image":"x"}]}})", nullptr},
        PatchCase{"UnknownDirective", "Pod", R"({"spec":{}})", R"({"spec":{"$patch":"shake"}})",
                  nullptr},
        PatchCase{"KeyOutsideRetainKeys", "Deployment", R"({"spec":{"strategy":{}}})",
                  R"({"spec":{"strategy":{"$retainKeys":["type"],"other":1}}})", nullptr}),
    case_name);

}  // namespace
}  // namespace edgemesh::kube
