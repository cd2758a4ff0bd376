#include "kube/protobuf.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kube/type_table.h"

namespace edgemesh::kube {
namespace {

using nlohmann::json;
using namespace std::string_literals;

// A few lines that write protobuf: independent of the reader.
std::string varint(uint64_t value) {
  std::string out;
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  return out + static_cast<char>(value);
}
std::string number(uint32_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}
std::string text(uint32_t field, const std::string& value) {
  return varint(field << 3 | 2) + varint(value.size()) + value;
}
std::string envelope(const std::string& version, const std::string& kind, const std::string& raw) {
  return "k8s\0"s + text(1, text(1, version) + text(2, kind)) + text(2, raw) + text(3, "") +
         text(4, "");
}
json decoded(const std::string& version, const std::string& kind, const std::string& raw) {
  auto out = decode_protobuf(envelope(version, kind, raw));
  EXPECT_TRUE(out) << out.error().message;
  return out ? *out : json();
}

TEST(ProtobufTest, LeavesOutZeroValuesButForPointers) {
  // Deployment: metadata=1, spec=2{replicas=1, template=3, paused=7, minReadySeconds=5}
  std::string spec = number(1, 0) + number(5, 0) + number(7, 0);
  json object =
      decoded("apps/v1", "Deployment", text(1, text(1, "web") + text(3, "")) + text(2, spec));
  EXPECT_EQ(object, json::parse(R"({"kind":"Deployment","apiVersion":"apps/v1",
    "metadata":{"name":"web"},"spec":{"replicas":0}})"));
}

TEST(ProtobufTest, InlinedTypesMapsAndSpecialTypes) {
  // Pod: spec=2{volumes=1{name=1, volumeSource=2{emptyDir=2{}}}, containers=2{name=1, ports..,
  // resources=8}}
  std::string volume = text(1, "v") + text(2, text(2, ""));
  std::string quantity = text(1, "500m");
  std::string limits = text(1, text(1, "cpu") + text(2, quantity));
  // livenessProbe=10{handler=1{httpGet=2{path=1, port=2{type=1,intVal=2}}}, periodSeconds=4}
  std::string probe =
      text(1, text(2, text(1, "/z") + text(2, number(1, 0) + number(2, 8080)))) + number(4, 7);
  std::string container = text(1, "c") + text(2, "i") + text(8, limits) + text(10, probe);
  json object = decoded("v1", "Pod", text(2, text(1, volume) + text(2, container)));
  EXPECT_EQ(object["spec"], json::parse(R"({"volumes":[{"name":"v","emptyDir":{}}],
    "containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"500m"}},
    "livenessProbe":{"httpGet":{"path":"/z","port":8080},"periodSeconds":7}}]})"));
}

TEST(ProtobufTest, TimesBytesAndIntOrString) {
  json secret =
      decoded("v1", "Secret",
              text(2, text(1, "k") + text(2, "v\0w"s)) + text(1, text(8, number(1, 1700000000))));
  EXPECT_EQ(secret["data"]["k"], "dgB3");
  EXPECT_EQ(secret["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
  json lease = decoded("coordination.k8s.io/v1", "Lease",
                       text(2, text(4, number(1, 1700000000) + number(2, 123456000))));
  EXPECT_EQ(lease["spec"]["renewTime"], "2023-11-14T22:13:20.123456Z");
  // Service: spec=2{ports=1{port=3, targetPort=4{type=1,strVal=3}}}
  json service = decoded("v1", "Service",
                         text(2, text(1, number(3, 80) + text(4, number(1, 1) + text(3, "http")))));
  EXPECT_EQ(service["spec"]["ports"], json::parse(R"([{"port":80,"targetPort":"http"}])"));
  json options = decoded("v1", "DeleteOptions", number(1, 0) + text(4, "Background"));
  EXPECT_EQ(options["gracePeriodSeconds"], 0);
  EXPECT_EQ(options["propagationPolicy"], "Background");
}

TEST(ProtobufTest, SkipsFieldsOfNewerReleases) {
  json object = decoded("v1", "ConfigMap",
                        text(2, text(1, "a") + text(2, "b")) + text(999, "new") + number(998, 1));
  EXPECT_EQ(object["data"], json::parse(R"({"a":"b"})"));
  EXPECT_EQ(object.size(), 3U);
}

TEST(ProtobufTest, RefusesWhatIsMalformed) {
  auto good = envelope("v1", "ConfigMap", text(2, text(1, "a") + text(2, "b")));
  EXPECT_TRUE(decode_protobuf(good));
  size_t taken = 0;
  for (size_t size = 0; size < good.size(); ++size) taken += decode_protobuf(good.substr(0, size)) ? 1 : 0;
  EXPECT_EQ(taken, 3U) << "where a field ends after the kind: no object, no encoding, no type";
  EXPECT_FALSE(decode_protobuf(envelope("v1", "Nothing", "")));
  EXPECT_FALSE(decode_protobuf(envelope("v2", "Pod", "")));
  EXPECT_FALSE(decode_protobuf(envelope("v1", "ConfigMap", text(1, text(1, "\xff\xfe")))))
      << "not UTF-8";
  EXPECT_FALSE(decode_protobuf(envelope("v1", "ConfigMap", number(1, 5)))) << "wrong wire type";
  EXPECT_FALSE(decode_protobuf(envelope("v1", "ConfigMap", "\x0f")));
  // A schema within a schema, 100 times: properties=29 map of schemas.
  std::string deep;
  for (int i = 0; i < 100; ++i) deep = text(28, deep);
  std::string versions = text(7, text(4, text(1, deep)));
  EXPECT_FALSE(decode_protobuf(
      envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", text(2, versions))));
}

TEST(TypeTableTest, KnowsHowListsMerge) {
  const TypeInfo* container = find_type("Container");
  ASSERT_NE(container, nullptr);
  const TypeField* ports = container->find("ports");
  ASSERT_NE(ports, nullptr);
  EXPECT_EQ(ports->merge_key, "containerPort");
  EXPECT_EQ(ports->map_keys, (std::vector<std::string_view>{"containerPort", "protocol"}));
  EXPECT_EQ(ports->type, find_type("ContainerPort"));
  EXPECT_TRUE(find_type("meta.ObjectMeta")->find("finalizers")->set);
  EXPECT_TRUE(find_type("meta.LabelSelector")->atomic);
  EXPECT_FALSE(container->find("args")->merges);
  EXPECT_NE(find_type("Volume")->find("configMap"), nullptr) << "of an inlined type";
}

TEST(TypeTableTest, EveryTypeThatIsReferredToHasFields) {
  std::string_view text = type_tables();
  size_t types = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    for (size_t at = line.find('<'); at != std::string_view::npos; at = line.find('<', at + 1)) {
      std::string_view name = line.substr(at + 1, line.find('>', at) - at - 1);
      const TypeInfo* type = find_type(name);
      ASSERT_NE(type, nullptr) << name;
      bool empty_on_purpose = name == "apiextensions.CustomResourceSubresourceStatus";
      EXPECT_TRUE(!type->fields.empty() || empty_on_purpose) << name;
    }
    ++types;
  }
  EXPECT_GT(types, 400U);
}

}  // namespace
}  // namespace edgemesh::kube
