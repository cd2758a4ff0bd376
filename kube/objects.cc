#include "kube/objects.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "kube/json_util.h"
#include "kube/types.h"

namespace edgemesh::kube {

using nlohmann::json;

namespace {

// Reads fields of one JSON object; the first wrong type is remembered with its path. Null counts as
// absent, as the API says.
class Fields {
 public:
  Fields(const json& object, std::string path, Error* error)
      : object_(object), path_(std::move(path)), error_(error) {
    if (!object_.is_object()) wrong("", "an object");
  }

  void text(const char* name, std::string* out) const {
    const json* v = find(name);
    if (v == nullptr) return;
    if (!v->is_string()) return wrong(name, "a string");
    *out = v->get_ref<const std::string&>();
  }
  void boolean(const char* name, bool* out) const {
    const json* v = find(name);
    if (v == nullptr) return;
    if (!v->is_boolean()) return wrong(name, "true or false");
    *out = v->get<bool>();
  }
  template <class Int>
  void number(const char* name, Int* out, int64_t min, int64_t max) const {
    const json* v = find(name);
    if (v == nullptr) return;
    if (!v->is_number_integer()) return wrong(name, "an integer");
    auto n = v->get<int64_t>();
    if (n < min || n > max) return wrong(name, fmt::format("{} to {}", min, max));
    *out = static_cast<Int>(n);
  }
  void texts(const char* name, std::vector<std::string>* out) const {
    for (const json& item : list(name)) {
      if (!item.is_string()) return wrong(name, "a list of strings");
      out->push_back(item.get<std::string>());
    }
  }
  void map(const char* name, StringMap* out) const {
    const json* v = find(name);
    if (v == nullptr) return;
    if (!v->is_object()) return wrong(name, "an object");
    for (const auto& [key, value] : v->items()) {
      if (!value.is_string()) return wrong(name, "a map of strings");
      out->emplace(key, value.get_ref<const std::string&>());
    }
  }
  const json& list(const char* name) const {
    static const json kEmpty = json::array();
    const json* v = find(name);
    if (v == nullptr) return kEmpty;
    if (v->is_array()) return *v;
    wrong(name, "a list");
    return kEmpty;
  }
  Fields section(const char* name) const {
    static const json kEmpty = json::object();
    const json* v = find(name);
    return Fields(v != nullptr ? *v : kEmpty, join(name), error_);
  }
  Fields item(const json& value, const char* list_name, size_t index) const {
    return Fields(value, fmt::format("{}[{}]", join(list_name), index), error_);
  }
  const json* find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  void wrong(const char* name, std::string_view want) const {
    if (!error_->message.empty()) return;
    error_->code = ErrorCode::kInvalidArgument;
    error_->message = fmt::format("{}: want {}", join(name), want);
  }

 private:
  std::string join(const char* name) const {
    if (path_.empty()) return *name != '\0' ? name : "object";
    return *name != '\0' ? path_ + "." + name : path_;
  }
  const json& object_;
  std::string path_;
  Error* error_;
};

void read_meta(const Fields& object, Meta* out) {
  Fields meta = object.section("metadata");
  meta.text("namespace", &out->ns);
  meta.text("name", &out->name);
  meta.text("uid", &out->uid);
  meta.text("resourceVersion", &out->resource_version);
  meta.map("labels", &out->labels);
  meta.map("annotations", &out->annotations);
  if (out->name.empty()) meta.wrong("name", "a name");
}

ServicePort read_service_port(const Fields& in) {
  ServicePort port;
  in.text("name", &port.name);
  in.text("protocol", &port.protocol);
  in.text("appProtocol", &port.app_protocol);
  in.number("port", &port.port, 1, 65535);
  in.number("nodePort", &port.node_port, 0, 65535);
  if (const json* target = in.find("targetPort")) {
    if (target->is_string()) {
      in.text("targetPort", &port.target_port_name);
    } else {
      in.number("targetPort", &port.target_port, 0, 65535);
    }
  }
  return port;
}

SliceEndpoint read_endpoint(const Fields& in) {
  SliceEndpoint endpoint;
  in.texts("addresses", &endpoint.addresses);
  in.text("nodeName", &endpoint.node_name);
  in.text("zone", &endpoint.zone);
  in.text("hostname", &endpoint.hostname);
  Fields conditions = in.section("conditions");
  conditions.boolean("ready", &endpoint.ready);
  endpoint.serving = endpoint.ready;  // unset: the same as ready
  conditions.boolean("serving", &endpoint.serving);
  conditions.boolean("terminating", &endpoint.terminating);
  in.section("targetRef").text("name", &endpoint.target_name);
  return endpoint;
}

template <class T>
Result<T> finish(T value, Error error, const char* kind) {
  if (error.message.empty()) return value;
  return fail(error.with_context(fmt::format("{} {}", kind, object_key(value.ns, value.name))));
}

template <class T>
Result<T> from_text(std::string_view text, Result<T> (*parse)(const json&)) {
  EM_TRY(json object, parse_json(text));
  return parse(object);
}

}  // namespace

int json_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

Result<json> parse_json(std::string_view text) {
  if (json_depth(text) > kMaxJsonDepth) {
    return fail(ErrorCode::kInvalidArgument, "JSON: nested deeper than {}", kMaxJsonDepth);
  }
  json value = json::parse(text, nullptr, false);
  if (!value.is_discarded()) return value;
  // Parsed again only to say where it broke.
  struct Where : nlohmann::json_sax<json> {
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(number_integer_t) override { return true; }
    bool number_unsigned(number_unsigned_t) override { return true; }
    bool number_float(number_float_t, const string_t&) override { return true; }
    bool string(string_t&) override { return true; }
    bool binary(binary_t&) override { return true; }
    bool start_object(std::size_t) override { return true; }
    bool key(string_t&) override { return true; }
    bool end_object() override { return true; }
    bool start_array(std::size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(std::size_t position, const std::string&,
                     const nlohmann::detail::exception&) override {
      at = position;
      return false;
    }
    std::size_t at = 0;
  } where;
  json::sax_parse(text, &where);
  return fail(ErrorCode::kInvalidArgument, "JSON: syntax error at byte {}", where.at);
}

std::string to_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

namespace {
std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}
}  // namespace

uint64_t resource_version_number(std::string_view text) {
  return whole_number(text).value_or(0);
}

bool version_at_least(std::string_view a, std::string_view b) {
  const auto left = whole_number(a);
  const auto right = whole_number(b);
  return left && right ? *left >= *right : a == b;
}

Result<Meta> parse_meta(const json& object) {
  Error error;
  Meta meta;
  read_meta(Fields(object, "", &error), &meta);
  return finish(std::move(meta), std::move(error), "object");
}

Result<Service> parse_service(const json& object) {
  Error error;
  Service out;
  Fields root(object, "", &error);
  read_meta(root, &out);
  Fields spec = root.section("spec");
  spec.text("type", &out.type);
  spec.text("clusterIP", &out.cluster_ip);
  spec.texts("clusterIPs", &out.cluster_ips);
  std::erase(out.cluster_ips, "None");
  std::erase(out.cluster_ips, "");
  if (out.cluster_ips.empty() && !out.cluster_ip.empty() && !out.headless()) {
    out.cluster_ips.push_back(out.cluster_ip);
  }
  spec.texts("externalIPs", &out.external_ips);
  spec.map("selector", &out.selector);
  spec.text("externalName", &out.external_name);
  spec.text("sessionAffinity", &out.session_affinity);
  spec.section("sessionAffinityConfig")
      .section("clientIP")
      .number("timeoutSeconds", &out.affinity_timeout_s, 1, 86400);
  spec.boolean("publishNotReadyAddresses", &out.publish_not_ready);
  size_t index = 0;
  for (const json& port : spec.list("ports")) {
    out.ports.push_back(read_service_port(spec.item(port, "ports", index++)));
  }
  return finish(std::move(out), std::move(error), "service");
}

Result<EndpointSlice> parse_endpoint_slice(const json& object) {
  Error error;
  EndpointSlice out;
  Fields root(object, "", &error);
  read_meta(root, &out);
  if (auto it = out.labels.find("kubernetes.io/service-name"); it != out.labels.end()) {
    out.service_name = it->second;
  }
  root.text("addressType", &out.address_type);
  size_t index = 0;
  for (const json& endpoint : root.list("endpoints")) {
    out.endpoints.push_back(read_endpoint(root.item(endpoint, "endpoints", index++)));
  }
  index = 0;
  for (const json& item : root.list("ports")) {
    Fields in = root.item(item, "ports", index++);
    EndpointSlice::Port port;
    in.text("name", &port.name);
    in.text("protocol", &port.protocol);
    in.text("appProtocol", &port.app_protocol);
    in.number("port", &port.port, 0, 65535);
    out.ports.push_back(std::move(port));
  }
  return finish(std::move(out), std::move(error), "endpointslice");
}

Result<Node> parse_node(const json& object) {
  Error error;
  Node out;
  Fields root(object, "", &error);
  read_meta(root, &out);
  Fields spec = root.section("spec");
  spec.texts("podCIDRs", &out.pod_cidrs);
  spec.boolean("unschedulable", &out.unschedulable);
  Fields status = root.section("status");
  size_t index = 0;
  for (const json& item : status.list("addresses")) {
    Fields in = status.item(item, "addresses", index++);
    Node::Address address;
    in.text("type", &address.type);
    in.text("address", &address.address);
    out.addresses.push_back(std::move(address));
  }
  index = 0;
  for (const json& item : status.list("conditions")) {
    Fields in = status.item(item, "conditions", index++);
    std::string type, value;
    in.text("type", &type);
    in.text("status", &value);
    if (type == "Ready") out.ready = value == "True";
  }
  return finish(std::move(out), std::move(error), "node");
}

Result<Meta> parse_meta(std::string_view text) {
  return from_text<Meta>(text, parse_meta);
}
Result<Service> parse_service(std::string_view text) {
  return from_text<Service>(text, parse_service);
}
Result<EndpointSlice> parse_endpoint_slice(std::string_view text) {
  return from_text<EndpointSlice>(text, parse_endpoint_slice);
}
Result<Node> parse_node(std::string_view text) {
  return from_text<Node>(text, parse_node);
}

}  // namespace edgemesh::kube
