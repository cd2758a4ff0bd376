// The sandbox of a pod: names, DNS, ports, cgroup, namespaces.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/edged/spec/labels.h"
#include "agent/edged/spec/security.h"
#include "agent/edged/spec/translate.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

// What resolvers take (glibc, musl).
constexpr size_t kMostServers = 3, kMostSearches = 32, kMostSearchChars = 2048;
constexpr size_t kMostHostname = 63;

template <class Fn>
void for_each_at(const Json* list, Fn fn) {
  if (list == nullptr || !list->is_array()) return;
  for (const Json& item : *list) fn(item);
}

void add_once(std::vector<std::string>& to, const std::string& text) {
  if (!text.empty() && std::find(to.begin(), to.end(), text) == to.end()) to.push_back(text);
}

void merge_option(std::vector<std::string>& options, const std::string& name,
                  const std::string& value) {
  const std::string text = value.empty() ? name : name + ":" + value;
  for (std::string& have : options) {
    if (have.substr(0, have.find(':')) != name) continue;
    have = text;
    return;
  }
  options.push_back(text);
}

DnsSettings by_policy(const Pod& pod, const NodeContext& node) {
  std::string policy = kube::text_at(*pod.json, "spec", "dnsPolicy");
  if (policy.empty()) policy = "ClusterFirst";
  if (policy == "None") return {};
  const bool cluster =
      policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !pod.host_network);
  if (!cluster || node.cluster_dns.empty()) return node.host_dns;
  DnsSettings out;
  out.servers = node.cluster_dns;
  const std::string& domain = node.cluster_domain;
  out.searches = {fmt::format("{}.svc.{}", pod.ns, domain), "svc." + domain, domain};
  for (const std::string& search : node.host_dns.searches) add_once(out.searches, search);
  out.options = {"ndots:5"};
  return out;
}

void set_dns(const Pod& pod, const NodeContext& node, pb::PodSandboxConfig& out) {
  DnsSettings dns = by_policy(pod, node);
  if (const Json* own = kube::find(*pod.json, "spec", "dnsConfig")) {
    for_each_at(kube::find(*own, "nameservers"), [&](const Json& s) {
      if (s.is_string()) add_once(dns.servers, s.get<std::string>());
    });
    for_each_at(kube::find(*own, "searches"), [&](const Json& s) {
      if (s.is_string()) add_once(dns.searches, s.get<std::string>());
    });
    for_each_at(kube::find(*own, "options"), [&](const Json& o) {
      if (const std::string name = kube::text_at(o, "name"); !name.empty())
        merge_option(dns.options, name, kube::text_at(o, "value"));
    });
  }
  auto* to = out.mutable_dns_config();
  if (dns.servers.size() > kMostServers) dns.servers.resize(kMostServers);
  if (dns.searches.size() > kMostSearches) dns.searches.resize(kMostSearches);
  size_t chars = 0;
  for (const std::string& one : dns.servers) to->add_servers(one);
  for (const std::string& one : dns.searches) {
    if ((chars += one.size() + 1) > kMostSearchChars) break;
    to->add_searches(one);
  }
  for (const std::string& one : dns.options) to->add_options(one);
}

std::string hostname_of(const Pod& pod, const NodeContext& node) {
  std::string name = kube::text_at(*pod.json, "spec", "hostname");
  if (name.empty()) name = pod.name;
  const std::string subdomain = kube::text_at(*pod.json, "spec", "subdomain");
  if (!subdomain.empty() && flag_of(kube::find(*pod.json, "spec", "setHostnameAsFQDN")))
    name = fmt::format("{}.{}.{}.svc.{}", name, subdomain, pod.ns, node.cluster_domain);
  if (name.size() > kMostHostname) name.resize(kMostHostname);
  while (!name.empty() && (name.back() == '-' || name.back() == '.')) name.pop_back();
  return name;
}

void set_ports(const Pod& pod, pb::PodSandboxConfig& out) {
  const auto add = [&](const Container& container) {
    for (const ContainerPort& port : container.ports) {
      if (port.host_port == 0) continue;
      auto* to = out.add_port_mappings();
      to->set_protocol(port.protocol == "UDP"    ? pb::UDP
                       : port.protocol == "SCTP" ? pb::SCTP
                                                 : pb::TCP);
      to->set_container_port(port.container_port);
      to->set_host_port(port.host_port);
      to->set_host_ip(port.host_ip);
    }
  };
  for (const Container& c : pod.init_containers) {
    if (c.restart_always) add(c);
  }
  for (const Container& c : pod.containers) add(c);
}

}  // namespace

DnsSettings read_resolv_conf(std::string_view text) {
  DnsSettings out;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    std::vector<std::string> words;
    while (!line.empty()) {
      const size_t from = line.find_first_not_of(" \t\r");
      if (from == std::string_view::npos) break;
      const size_t to = std::min(line.find_first_of(" \t\r", from), line.size());
      words.emplace_back(line.substr(from, to - from));
      line.remove_prefix(to);
    }
    if (words.size() < 2) continue;
    const std::vector<std::string> rest(words.begin() + 1, words.end());
    if (words[0] == "nameserver") out.servers.push_back(words[1]);
    // The last line of these two counts.
    if (words[0] == "search" || words[0] == "domain") out.searches = rest;
    if (words[0] == "options") out.options.insert(out.options.end(), rest.begin(), rest.end());
  }
  std::erase(out.searches, ".");
  return out;
}

std::string log_folder(const Pod& pod, const NodeContext& node) {
  return fmt::format("{}/{}_{}_{}", node.log_root, pod.ns, pod.name, pod.uid);
}

pb::PodSandboxConfig sandbox_config(const Pod& pod, const NodeContext& node, uint32_t attempt) {
  pb::PodSandboxConfig out;
  auto* meta = out.mutable_metadata();
  meta->set_name(pod.name);
  meta->set_namespace_(pod.ns);
  meta->set_uid(pod.uid);
  meta->set_attempt(attempt);
  // On the host's network it has the host's name.
  if (!pod.host_network) out.set_hostname(hostname_of(pod, node));
  out.set_log_directory(log_folder(pod, node));
  set_dns(pod, node, out);
  if (!pod.host_network) set_ports(pod, out);
  out.mutable_labels()->insert(pod.labels.begin(), pod.labels.end());
  (*out.mutable_labels())[kPodNameLabel] = pod.name;
  (*out.mutable_labels())[kPodNamespaceLabel] = pod.ns;
  (*out.mutable_labels())[kPodUidLabel] = pod.uid;
  out.mutable_annotations()->insert(pod.annotations.begin(), pod.annotations.end());
  out.mutable_linux()->set_cgroup_parent(cgroup_of(pod, node.cgroup_root));
  set_sandbox_security(pod, *out.mutable_linux());
  return out;
}

}  // namespace edgemesh::edged
