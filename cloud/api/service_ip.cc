#include "cloud/api/service_ip.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

// The first addresses are left to a person's choice (10.96.0.1 and 10.96.0.10 are the customary
// ones of the API and of DNS).
constexpr uint64_t kReservedFirst = 16;
constexpr int kMaxHostBits = 20;

std::vector<std::string> texts(const json* list) {
  std::vector<std::string> out;
  if (list == nullptr || !list->is_array()) return out;
  for (const json& item : *list) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<std::string> ips_of(const json& service) {
  auto out = texts(kube::find(service, "spec", "clusterIPs"));
  std::string first = kube::text_at(service, "spec", "clusterIP");
  if (out.empty() && !first.empty()) out.push_back(first);
  std::erase(out, "None");
  std::erase(out, "");
  return out;
}

std::vector<uint16_t> node_ports_of(const json& service) {
  std::vector<uint16_t> out;
  const json* ports = kube::find(service, "spec", "ports");
  if (ports == nullptr || !ports->is_array()) return out;
  for (const json& port : *ports) {
    const json* node_port = kube::find(port, "nodePort");
    if (node_port == nullptr || !node_port->is_number_integer()) continue;
    auto value = node_port->get<int64_t>();
    if (value > 0 && value < 65536) out.push_back(static_cast<uint16_t>(value));
  }
  return out;
}

bool wants_ip(const std::string& type) {
  return type != "ExternalName";
}
bool wants_ports(const std::string& type) {
  return type == "NodePort" || type == "LoadBalancer";
}

}  // namespace

IpAddr service_address(const Cidr& block, uint64_t offset) {
  std::array<uint8_t, 16> bytes{};
  std::copy_n(block.base.bytes(), block.base.size(), bytes.begin());
  for (size_t i = block.base.size(); i-- > 0 && offset != 0; offset >>= 8) {
    bytes[i] = static_cast<uint8_t>(bytes[i] | (offset & 0xff));
  }
  return block.base.is_v6() ? IpAddr::v6(bytes.data()) : IpAddr::v4(bytes.data());
}

ServiceAddresses::ServiceAddresses(std::vector<Cidr> blocks, uint16_t first_port,
                                   uint16_t last_port)
    : blocks_(std::move(blocks)),
      first_port_(first_port),
      last_port_(last_port),
      random_(std::random_device()()) {
  if (blocks_.empty()) {
    auto standard = Cidr::parse("10.96.0.0/16");
    if (standard) blocks_.push_back(*standard);
  }
}

const Cidr* ServiceAddresses::block_of(bool v6) const {
  for (const Cidr& block : blocks_) {
    if (block.base.is_v6() == v6) return &block;
  }
  return nullptr;
}

std::string ServiceAddresses::pick(const Cidr& block) {
  int bits = std::min((block.base.is_v6() ? 128 : 32) - block.bits, kMaxHostBits);
  if (bits < 1) return {};
  uint64_t size = (1ULL << bits) - 1;  // the last one is IPv4's broadcast address
  uint64_t first = size > 4 * kReservedFirst ? kReservedFirst : 1;
  if (size <= first) return {};
  uint64_t start = random_() % (size - first);
  for (uint64_t i = 0; i < size - first; ++i) {
    std::string ip = service_address(block, first + (start + i) % (size - first)).to_string();
    if (!ips_.contains(ip)) return ip;
  }
  return {};
}

uint16_t ServiceAddresses::pick_port() {
  auto size = static_cast<uint32_t>(last_port_ - first_port_ + 1);
  uint32_t start = static_cast<uint32_t>(random_()) % size;
  for (uint32_t i = 0; i < size; ++i) {
    auto port = static_cast<uint16_t>(first_port_ + (start + i) % size);
    if (!ports_.contains(port)) return port;
  }
  return 0;
}

void ServiceAddresses::assign(json* service, const json* before, FieldErrors* errors,
                              Taken* taken) {
  json& spec = (*service)["spec"];
  std::string type = kube::text_at(spec, "type");
  if (!wants_ip(type)) {
    for (const char* field : {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"}) {
      spec.erase(field);
    }
  } else {
    assign_ips(&spec, before, errors, taken);
  }
  if (wants_ports(type)) assign_ports(&spec, before, errors, taken);
}

void ServiceAddresses::assign_ips(json* spec, const json* before, FieldErrors* errors,
                                  Taken* taken) {
  std::string wanted = kube::text_at(*spec, "clusterIP");
  auto listed = texts(kube::find(*spec, "clusterIPs"));
  std::vector<std::string> had = before != nullptr ? ips_of(*before) : std::vector<std::string>();
  std::string had_first = before != nullptr ? kube::text_at(*before, "spec", "clusterIP") : "";
  if (wanted.empty() && !listed.empty()) wanted = listed[0];
  if (wanted.empty() && !had_first.empty()) {
    wanted = had_first;  // an update that leaves it out keeps it
    if (listed.empty()) listed = had;
  }
  if (!had_first.empty() && wanted != had_first) {
    errors->push_back(
        FieldError::invalid("spec.clusterIPs[0]", json(wanted).dump(), "may not change once set"));
    return;
  }
  if (wanted == "None") {
    (*spec)["clusterIP"] = "None";
    (*spec)["clusterIPs"] = {"None"};
    if (!spec->contains("ipFamilies")) (*spec)["ipFamilies"] = {"IPv4"};
    if (!spec->contains("ipFamilyPolicy")) (*spec)["ipFamilyPolicy"] = "SingleStack";
    return;
  }
  if (wanted.empty()) wanted = choose_ip(*spec, errors);
  if (wanted.empty()) return;
  auto ip = IpAddr::parse(wanted);
  if (!ip) {
    errors->push_back(FieldError::invalid("spec.clusterIPs[0]", json(wanted).dump(),
                                          "must be a valid IP address, or \"None\""));
    return;
  }
  if (had_first.empty() && !take_ip(*ip, errors, taken)) return;
  wanted = ip->to_string();
  (*spec)["clusterIP"] = wanted;
  (*spec)["clusterIPs"] = {wanted};
  (*spec)["ipFamilies"] = {ip->is_v6() ? "IPv6" : "IPv4"};
  (*spec)["ipFamilyPolicy"] = "SingleStack";
}

std::string ServiceAddresses::choose_ip(const json& spec, FieldErrors* errors) {
  auto families = texts(kube::find(spec, "ipFamilies"));
  bool v6 = !families.empty() ? families[0] == "IPv6" : blocks_[0].base.is_v6();
  const Cidr* block = block_of(v6);
  if (block == nullptr) {
    errors->push_back(FieldError::invalid("spec.ipFamilies[0]", v6 ? "\"IPv6\"" : "\"IPv4\"",
                                          "not configured on this cluster"));
    return {};
  }
  std::string ip = pick(*block);
  if (ip.empty()) {
    errors->push_back(FieldError::invalid("spec.clusterIPs", "[]",
                                          "no address is free in " + block->to_string()));
  }
  return ip;
}

bool ServiceAddresses::take_ip(const IpAddr& ip, FieldErrors* errors, Taken* taken) {
  const Cidr* block = block_of(ip.is_v6());
  std::string text = ip.to_string();
  std::string shown = json::array({text}).dump();
  if (block == nullptr || !block->contains(ip)) {
    errors->push_back(FieldError::invalid(
        "spec.clusterIPs", shown,
        fmt::format("failed to allocate IP {}: the provided IP is not in the service range {}",
                    text, block != nullptr ? block->to_string() : "(none of this family)")));
    return false;
  }
  if (!ips_.insert(text).second) {
    errors->push_back(FieldError::invalid(
        "spec.clusterIPs", shown,
        fmt::format("failed to allocate IP {}: provided IP is already allocated", text)));
    return false;
  }
  taken->ips.push_back(text);
  return true;
}

void ServiceAddresses::assign_ports(json* spec, const json* before, FieldErrors* errors,
                                    Taken* taken) {
  auto ports = spec->find("ports");
  if (ports == spec->end() || !ports->is_array()) return;
  auto had = before != nullptr ? node_ports_of(*before) : std::vector<uint16_t>();
  for (size_t i = 0; i < ports->size(); ++i) {
    json& port = (*ports)[i];
    if (!port.is_object()) continue;
    const json* given = kube::find(port, "nodePort");
    std::string field = fmt::format("spec.ports[{}].nodePort", i);
    int64_t value = given != nullptr && given->is_number_integer() ? given->get<int64_t>() : 0;
    if (value == 0) value = pick_port();
    if (value < first_port_ || value > last_port_) {
      errors->push_back(FieldError::invalid(
          field, std::to_string(value),
          fmt::format("provided port is not in the valid range. The range of valid ports is {}-{}",
                      first_port_, last_port_)));
      continue;
    }
    auto number = static_cast<uint16_t>(value);
    port["nodePort"] = number;
    if (std::find(had.begin(), had.end(), number) != had.end()) continue;
    if (!ports_.insert(number).second) {
      errors->push_back(
          FieldError::invalid(field, std::to_string(value), "provided port is already allocated"));
      continue;
    }
    taken->ports.push_back(number);
  }
}

void ServiceAddresses::release(const Taken& taken) {
  for (const std::string& ip : taken.ips) ips_.erase(ip);
  for (uint16_t port : taken.ports) ports_.erase(port);
}

void ServiceAddresses::use(const json& service) {
  for (std::string& ip : ips_of(service)) ips_.insert(std::move(ip));
  for (uint16_t port : node_ports_of(service)) ports_.insert(port);
}

void ServiceAddresses::forget(const json& service) {
  for (const std::string& ip : ips_of(service)) ips_.erase(ip);
  for (uint16_t port : node_ports_of(service)) ports_.erase(port);
}

}  // namespace edgemesh::cloud
