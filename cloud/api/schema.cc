#include "cloud/api/schema.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

enum class Form { kString, kInteger, kBoolean, kMap, kFree, kStrings, kIntOrString, kType, kTypes };

struct Field {
  std::string_view type;  // of the object that has the field
  std::string_view name;
  Form form;
  std::string_view target;  // for kType and kTypes
  std::string_view description;
};

// Types whose list of fields is whole; of the others some fields are not listed.
constexpr std::string_view kComplete[] = {
    "ConfigMap",     "Endpoint",      "EndpointConditions", "EndpointPort", "EndpointSlice",
    "Lease",         "NamespaceSpec", "Namespace",          "ObjectMeta",   "OwnerReference",
    "Secret",        "Service",       "ServiceSpec",        "ServicePort",  "SessionAffinityConfig",
    "ClientIPConfig"};

using F = Form;
constexpr Field kFields[] = {
    {"ObjectMeta", "name", F::kString, "", "Unique within a namespace; cannot be changed."},
    {"ObjectMeta", "namespace", F::kString, "", "The space within which the name is unique."},
    {"ObjectMeta", "generateName", F::kString, "", "Prefix of a name that the server completes."},
    {"ObjectMeta", "labels", F::kMap, "", "Keys and values that selectors look at."},
    {"ObjectMeta", "annotations", F::kMap, "", "Keys and values for tools; not selectable."},
    {"ObjectMeta", "finalizers", F::kStrings, "", "Must be empty before the object really goes."},
    {"ObjectMeta", "ownerReferences", F::kTypes, "OwnerReference", "Objects this one depends on."},
    {"ObjectMeta", "uid", F::kString, "", "Set by the server; unique in time and space."},
    {"ObjectMeta", "resourceVersion", F::kString, "",
     "Version of the object, for optimistic locks."},
    {"ObjectMeta", "generation", F::kInteger, "", "Rises when the wanted state changes."},
    {"ObjectMeta", "creationTimestamp", F::kString, "", "When the server made the object."},
    {"ObjectMeta", "deletionTimestamp", F::kString, "", "When the object is to go."},
    {"ObjectMeta", "deletionGracePeriodSeconds", F::kInteger, "", "Seconds left to end in order."},
    {"ObjectMeta", "managedFields", F::kFree, "", "Who applied which fields."},
    {"ObjectMeta", "selfLink", F::kString, "", "Not used any more."},
    {"OwnerReference", "apiVersion", F::kString, "", "Version of the owner's kind."},
    {"OwnerReference", "kind", F::kString, "", "Kind of the owner."},
    {"OwnerReference", "name", F::kString, "", "Name of the owner."},
    {"OwnerReference", "uid", F::kString, "", "UID of the owner."},
    {"OwnerReference", "controller", F::kBoolean, "", "The owner is the managing controller."},
    {"OwnerReference", "blockOwnerDeletion", F::kBoolean, "", "The owner waits for this object."},
    {"Service", "spec", F::kType, "ServiceSpec", "What the service is wanted to be."},
    {"Service", "status", F::kType, "ServiceStatus", "What is known of the service."},
    {"ServiceSpec", "type", F::kString, "", "ClusterIP, NodePort, LoadBalancer or ExternalName."},
    {"ServiceSpec", "clusterIP", F::kString, "", "Virtual address; None for a headless service."},
    {"ServiceSpec", "clusterIPs", F::kStrings, "", "Virtual addresses, one a family."},
    {"ServiceSpec", "ports", F::kTypes, "ServicePort", "Ports that the service offers."},
    {"ServiceSpec", "selector", F::kMap, "", "Labels of the pods that the service stands for."},
    {"ServiceSpec", "externalIPs", F::kStrings, "", "Further addresses that nodes accept."},
    {"ServiceSpec", "externalName", F::kString, "", "Name that an ExternalName service points to."},
    {"ServiceSpec", "sessionAffinity", F::kString, "", "None or ClientIP."},
    {"ServiceSpec", "sessionAffinityConfig", F::kType, "SessionAffinityConfig", "Its details."},
    {"ServiceSpec", "publishNotReadyAddresses", F::kBoolean, "", "Offer endpoints not ready too."},
    {"ServiceSpec", "ipFamilies", F::kStrings, "", "IPv4, IPv6."},
    {"ServiceSpec", "ipFamilyPolicy", F::kString, "", "SingleStack, PreferDualStack, ..."},
    {"ServiceSpec", "internalTrafficPolicy", F::kString, "", "Cluster or Local."},
    {"ServiceSpec", "externalTrafficPolicy", F::kString, "", "Cluster or Local."},
    {"ServiceSpec", "trafficDistribution", F::kString, "", "Preference, for example PreferClose."},
    {"ServiceSpec", "healthCheckNodePort", F::kInteger, "", "Port of the health check."},
    {"ServiceSpec", "loadBalancerIP", F::kString, "", "Wanted address of a load balancer."},
    {"ServiceSpec", "loadBalancerClass", F::kString, "", "Which load balancer takes it."},
    {"ServiceSpec", "loadBalancerSourceRanges", F::kStrings, "", "Clients that it lets in."},
    {"ServiceSpec", "allocateLoadBalancerNodePorts", F::kBoolean, "", "Whether it has node ports."},
    {"ServicePort", "name", F::kString, "", "Needed when there are several ports."},
    {"ServicePort", "protocol", F::kString, "", "TCP, UDP or SCTP."},
    {"ServicePort", "appProtocol", F::kString, "", "What is spoken: http, kubernetes.io/h2c, ..."},
    {"ServicePort", "port", F::kInteger, "", "Port of the service."},
    {"ServicePort", "targetPort", F::kIntOrString, "", "Port of the endpoints, number or name."},
    {"ServicePort", "nodePort", F::kInteger, "", "Port on every node."},
    {"SessionAffinityConfig", "clientIP", F::kType, "ClientIPConfig", "For affinity ClientIP."},
    {"ClientIPConfig", "timeoutSeconds", F::kInteger, "", "How long a client stays."},
    {"ServiceStatus", "loadBalancer", F::kFree, "", "Addresses of the load balancer."},
    {"Namespace", "spec", F::kType, "NamespaceSpec", "What the namespace is wanted to be."},
    {"Namespace", "status", F::kType, "PhaseStatus", "Active or Terminating."},
    {"NamespaceSpec", "finalizers", F::kStrings, "", "Who must clean up before it goes."},
    {"PhaseStatus", "phase", F::kString, "", "Where it is in its life."},
    {"PhaseStatus", "conditions", F::kTypes, "Condition", "What was observed."},
    {"Condition", "type", F::kString, "", "Name of the condition."},
    {"Condition", "status", F::kString, "", "True, False or Unknown."},
    {"Condition", "reason", F::kString, "", "One word why."},
    {"Condition", "message", F::kString, "", "For a person."},
    {"Condition", "lastTransitionTime", F::kString, "", "When it last changed."},
    {"ConfigMap", "data", F::kMap, "", "Text by key."},
    {"ConfigMap", "binaryData", F::kMap, "", "Base64 by key."},
    {"ConfigMap", "immutable", F::kBoolean, "", "The data cannot be changed any more."},
    {"Secret", "data", F::kMap, "", "Base64 by key."},
    {"Secret", "stringData", F::kMap, "", "Text by key; written into data."},
    {"Secret", "type", F::kString, "", "For programs that handle it."},
    {"Secret", "immutable", F::kBoolean, "", "The data cannot be changed any more."},
    {"Node", "spec", F::kType, "NodeSpec", "What the node is wanted to be."},
    {"Node", "status", F::kType, "NodeStatus", "What is known of the node."},
    {"NodeSpec", "unschedulable", F::kBoolean, "", "No new pods."},
    {"NodeSpec", "podCIDR", F::kString, "", "Addresses of its pods."},
    {"NodeSpec", "podCIDRs", F::kStrings, "", "Addresses of its pods, one block a family."},
    {"NodeSpec", "providerID", F::kString, "", "Name of the machine at its provider."},
    {"NodeSpec", "taints", F::kFree, "", "What keeps pods away."},
    {"NodeStatus", "addresses", F::kTypes, "NodeAddress", "Where the node can be reached."},
    {"NodeStatus", "conditions", F::kTypes, "Condition", "What was observed."},
    {"NodeStatus", "capacity", F::kMap, "", "All of its resources."},
    {"NodeStatus", "allocatable", F::kMap, "", "Resources for pods."},
    {"NodeStatus", "nodeInfo", F::kMap, "", "Machine, kernel and versions."},
    {"NodeAddress", "type", F::kString, "", "InternalIP, ExternalIP, Hostname."},
    {"NodeAddress", "address", F::kString, "", "The address."},
    {"Pod", "spec", F::kType, "PodSpec", "What is to run."},
    {"Pod", "status", F::kType, "PhaseStatus", "What runs."},
    {"PodSpec", "containers", F::kTypes, "Container", "Containers of the pod."},
    {"PodSpec", "initContainers", F::kTypes, "Container", "Run to their end before the others."},
    {"PodSpec", "nodeName", F::kString, "", "Node that runs the pod."},
    {"PodSpec", "nodeSelector", F::kMap, "", "Labels that the node must have."},
    {"PodSpec", "hostNetwork", F::kBoolean, "", "Use the network of the node."},
    {"PodSpec", "restartPolicy", F::kString, "", "Always, OnFailure or Never."},
    {"PodSpec", "serviceAccountName", F::kString, "", "Identity of the pod."},
    {"PodSpec", "terminationGracePeriodSeconds", F::kInteger, "", "Time to end in order."},
    {"PodSpec", "volumes", F::kFree, "", "Volumes that containers may mount."},
    {"Container", "name", F::kString, "", "Unique within the pod."},
    {"Container", "image", F::kString, "", "Image that is run."},
    {"Container", "command", F::kStrings, "", "Instead of the image's entry point."},
    {"Container", "args", F::kStrings, "", "Arguments."},
    {"Container", "env", F::kTypes, "EnvVar", "Environment."},
    {"Container", "ports", F::kTypes, "ContainerPort", "Ports that it listens on."},
    {"Container", "resources", F::kFree, "", "Wanted and allowed resources."},
    {"Container", "volumeMounts", F::kFree, "", "Where volumes appear."},
    {"EnvVar", "name", F::kString, "", "Name of the variable."},
    {"EnvVar", "value", F::kString, "", "Its value."},
    {"EnvVar", "valueFrom", F::kFree, "", "Where the value comes from."},
    {"ContainerPort", "name", F::kString, "", "Services may point to it."},
    {"ContainerPort", "containerPort", F::kInteger, "", "Port number."},
    {"ContainerPort", "hostPort", F::kInteger, "", "Port on the node."},
    {"ContainerPort", "protocol", F::kString, "", "TCP, UDP or SCTP."},
    {"EndpointSlice", "addressType", F::kString, "", "IPv4, IPv6 or FQDN."},
    {"EndpointSlice", "endpoints", F::kTypes, "Endpoint", "At most 1000."},
    {"EndpointSlice", "ports", F::kTypes, "EndpointPort", "Ports of every endpoint."},
    {"Endpoint", "addresses", F::kStrings, "", "Of this one endpoint; the first is used."},
    {"Endpoint", "conditions", F::kType, "EndpointConditions", "Its state."},
    {"Endpoint", "hostname", F::kString, "", "Name in DNS below the service."},
    {"Endpoint", "nodeName", F::kString, "", "Node it runs on."},
    {"Endpoint", "zone", F::kString, "", "Zone it runs in."},
    {"Endpoint", "targetRef", F::kFree, "", "Object behind it, a pod mostly."},
    {"Endpoint", "hints", F::kFree, "", "Who should use it."},
    {"Endpoint", "deprecatedTopology", F::kMap, "", "Not used any more."},
    {"EndpointConditions", "ready", F::kBoolean, "", "Takes traffic; unset means it does."},
    {"EndpointConditions", "serving", F::kBoolean, "", "Like ready, also while it ends."},
    {"EndpointConditions", "terminating", F::kBoolean, "", "Is about to end."},
    {"EndpointPort", "name", F::kString, "", "Name of the service port."},
    {"EndpointPort", "protocol", F::kString, "", "TCP, UDP or SCTP."},
    {"EndpointPort", "port", F::kInteger, "", "Port number."},
    {"EndpointPort", "appProtocol", F::kString, "", "What is spoken."},
    {"Lease", "spec", F::kType, "LeaseSpec", "Who holds it, since when."},
    {"LeaseSpec", "holderIdentity", F::kString, "", "Holder."},
    {"LeaseSpec", "leaseDurationSeconds", F::kInteger, "", "How long it is good."},
    {"LeaseSpec", "acquireTime", F::kString, "", "When it was taken."},
    {"LeaseSpec", "renewTime", F::kString, "", "When it was last renewed."},
    {"LeaseSpec", "leaseTransitions", F::kInteger, "", "How often the holder changed."},
};

// Kinds without fields of their own in the table.
constexpr Field kGeneric[] = {
    {"", "spec", F::kFree, "", "What is wanted."},
    {"", "status", F::kFree, "", "What is known."},
};

bool is_complete(std::string_view type) {
  for (std::string_view name : kComplete) {
    if (name == type) return true;
  }
  return false;
}

std::vector<const Field*> fields_of(std::string_view type) {
  std::vector<const Field*> out;
  for (const Field& field : kFields) {
    if (field.type == type) out.push_back(&field);
  }
  return out;
}

std::string type_schema(std::string_view type) {
  bool meta = type == "ObjectMeta" || type == "OwnerReference";
  std::string out = meta ? "io.k8s.apimachinery.pkg.apis.meta.v1." : "io.k8s.api.core.v1.";
  return out.append(type);
}

json reference(std::string_view type) {
  return {{"$ref", "#/components/schemas/" + type_schema(type)}};
}

json field_schema(const Field& field) {
  json out;
  switch (field.form) {
    case F::kString: out = {{"type", "string"}}; break;
    case F::kInteger: out = {{"type", "integer"}, {"format", "int64"}}; break;
    case F::kBoolean: out = {{"type", "boolean"}}; break;
    case F::kMap: out = {{"type", "object"}, {"additionalProperties", {{"type", "string"}}}}; break;
    case F::kFree: out = {{"x-kubernetes-preserve-unknown-fields", true}}; break;
    case F::kStrings: out = {{"type", "array"}, {"items", {{"type", "string"}}}}; break;
    case F::kIntOrString: out = {{"x-kubernetes-int-or-string", true}}; break;
    case F::kType: out = {{"allOf", json::array({reference(field.target)})}}; break;
    case F::kTypes: out = {{"type", "array"}, {"items", reference(field.target)}}; break;
  }
  out["description"] = field.description;
  return out;
}

void add_type(std::string_view type, json* schemas) {
  std::string name = type_schema(type);
  if (schemas->contains(name)) return;
  json properties = json::object();
  (*schemas)[name] = json::object();  // stops circles
  for (const Field* field : fields_of(type)) {
    properties[std::string(field->name)] = field_schema(*field);
    if (!field->target.empty()) add_type(field->target, schemas);
  }
  (*schemas)[name] = {{"type", "object"}, {"properties", std::move(properties)}};
}

const Field* find_field(std::string_view type, std::string_view name) {
  for (const Field& field : kFields) {
    if (field.type == type && field.name == name) return &field;
  }
  return nullptr;
}

void collect_unknown(std::string_view type, const json& value, const std::string& path,
                     std::vector<std::string>* out) {
  constexpr size_t kMaxShown = 10;
  if (!value.is_object()) return;
  for (const auto& [name, inner] : value.items()) {
    if (out->size() >= kMaxShown) return;
    std::string at = path.empty() ? name : path + "." + name;
    bool root = path.empty() && (name == "kind" || name == "apiVersion");
    bool directive = name.starts_with("$");  // of a strategic merge patch
    if (root || directive) continue;
    if (path.empty() && name == "metadata") {
      collect_unknown("ObjectMeta", inner, at, out);
      continue;
    }
    const Field* field = find_field(type, name);
    if (field == nullptr) {
      if (is_complete(type)) out->push_back(at);
      continue;
    }
    if (field->form == F::kType) collect_unknown(field->target, inner, at, out);
    if (field->form != F::kTypes || !inner.is_array()) continue;
    for (size_t i = 0; i < inner.size(); ++i) {
      collect_unknown(field->target, inner[i], fmt::format("{}[{}]", at, i), out);
    }
  }
}

}  // namespace

std::string schema_name(const ResourceInfo& resource) {
  std::string group = resource.type.group.empty()
                          ? "core"
                          : resource.type.group.substr(0, resource.type.group.find('.'));
  return fmt::format("io.k8s.api.{}.{}.{}", group, resource.type.version, resource.type.kind);
}

void add_schemas(const ResourceInfo& resource, json* schemas) {
  add_type("ObjectMeta", schemas);
  json properties = {
      {"apiVersion", {{"type", "string"}, {"description", "Group and version of the kind."}}},
      {"kind", {{"type", "string"}, {"description", "What the object is."}}},
      {"metadata",
       {{"allOf", json::array({reference("ObjectMeta")})}, {"description", "Name, labels, ..."}}}};
  auto own = fields_of(resource.type.kind);
  if (own.empty()) {
    for (const Field& field : kGeneric) own.push_back(&field);
  }
  for (const Field* field : own) {
    properties[std::string(field->name)] = field_schema(*field);
    if (!field->target.empty()) add_type(field->target, schemas);
  }
  json gvk = {{"group", resource.type.group},
              {"version", resource.type.version},
              {"kind", resource.type.kind}};
  (*schemas)[schema_name(resource)] = {
      {"type", "object"},
      {"description", resource.type.kind + " of the EdgeMesh API."},
      {"properties", std::move(properties)},
      {"x-kubernetes-group-version-kind", json::array({gvk})}};
}

std::vector<std::string> unknown_fields(const ResourceInfo& resource, const json& object) {
  std::vector<std::string> out;
  collect_unknown(resource.type.kind, object, "", &out);
  return out;
}

}  // namespace edgemesh::cloud
