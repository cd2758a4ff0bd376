#include "proxy/host_network.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "core/base/log.h"
#include "core/io/fd.h"

namespace edgemesh::proxy {

namespace {

constexpr std::string_view kHookChains[] = {"PREROUTING", "OUTPUT"};
constexpr std::string_view kOwnChains[] = {"EDGEMESH_PREROUTING", "EDGEMESH_OUTPUT"};
constexpr int kLastResortPreference = 32768;  // after the main and default tables

std::string tool(bool v6, std::string_view suffix = "") {
  return fmt::format("{}{}", v6 ? "ip6tables" : "iptables", suffix);
}
std::string family(bool v6) {
  return v6 ? "-6" : "-4";
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string first_line(std::string_view text) {
  while (!text.empty() && (text.front() == '\n' || text.front() == ' ')) text.remove_prefix(1);
  return std::string(text.substr(0, text.find('\n')));
}

// What a person should do about a failed tool.
Error explain(const std::vector<std::string>& argv, const io::ProcessResult& result) {
  std::string what = argv[0];
  for (size_t i = 1; i < argv.size(); ++i) what += " " + argv[i];
  if (contains(result.err, "ermission denied") || contains(result.err, "not permitted") ||
      contains(result.err, "must be root"))
    return {ErrorCode::kPermissionDenied,
            fmt::format("'{}' is not permitted: run the agent as root or give it CAP_NET_ADMIN "
                        "(and CAP_NET_RAW), or set capture to off",
                        what),
            0};
  std::string said = first_line(result.err);
  return {ErrorCode::kIo,
          fmt::format("'{}' failed: {}", what,
                      said.empty() ? fmt::format("exit status {}", result.exit_status) : said),
          0};
}

uint32_t last_resort_table(const CaptureConfig& config) {
  return config.table + 1;
}

}  // namespace

bool host_has_bridge() {
  io::Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  struct if_nameindex* all = if_nameindex();
  if (!fd.valid() || all == nullptr) return true;  // not known: then the rules are the safer choice
  bool found = false;
  for (const auto* one = all; one->if_index != 0 && !found; ++one) {
    ethtool_drvinfo driver{};
    driver.cmd = ETHTOOL_GDRVINFO;
    ifreq request{};
    std::strncpy(request.ifr_name, one->if_name, IFNAMSIZ - 1);
    request.ifr_data = reinterpret_cast<char*>(&driver);  // NOLINT
    found =
        ioctl(fd.get(), SIOCETHTOOL, &request) == 0 && std::strcmp(driver.driver, "bridge") == 0;
  }
  if_freenameindex(all);
  return found;
}

Result<io::ProcessResult> HostNetwork::run(const std::vector<std::string>& argv,
                                           std::string_view input) {
  auto result = executor_.run(argv, input);
  if (!result && result.error().code == ErrorCode::kNotFound)
    return fail(ErrorCode::kNotFound,
                "{} is not installed: install it ('apt install {}'), or set capture to off",
                argv[0], argv[0] == "ip" ? "iproute2" : "iptables");
  return result;
}

Result<> HostNetwork::must(const std::vector<std::string>& argv) {
  EM_TRY(auto result, run(argv));
  if (result.exit_status != 0) return fail(explain(argv, result));
  return {};
}

bool HostNetwork::succeeds(const std::vector<std::string>& argv) {
  auto result = run(argv);
  return result && result->exit_status == 0;
}

std::string HostNetwork::output(const std::vector<std::string>& argv) {
  auto result = run(argv);
  return result && result->exit_status == 0 ? result->out : "";
}

Result<> HostNetwork::check_tools(bool v4, bool v6) {
  EM_TRY_VOID(must({"ip", "rule", "show"}));
  for (bool six : {false, true})
    if (six ? v6 : v4) EM_TRY_VOID(must({tool(six), "-w", "-t", "mangle", "-S", "PREROUTING"}));
  return {};
}

bool HostNetwork::tells_of_changes(bool v6) {
  return contains(output({tool(v6), "--version"}), "nf_tables");
}

Result<ChainRules> HostNetwork::read_table(bool v6, std::string_view table) {
  ChainRules all;
  auto read = [&](std::string_view chain, bool required) -> Result<> {
    std::vector<std::string> argv{tool(v6), "-w", "-t", std::string(table), "-S"};
    if (!chain.empty()) argv.emplace_back(chain);
    EM_TRY(auto result, run(argv));
    if (result.exit_status == 0)
      all.merge(parse_rules(result.out));
    else if (required)
      return fail(explain(argv, result));
    return {};
  };
  // The nat table of a node with many services is megabytes: there, chain by chain.
  if (table == "mangle") {
    EM_TRY_VOID(read("", true));
    return all;
  }
  for (auto chain : kHookChains) EM_TRY_VOID(read(chain, true));
  for (auto chain : kOwnChains) EM_TRY_VOID(read(chain, false));
  return all;
}

Result<bool> HostNetwork::ensure_table(bool v6, std::string_view table, const ChainRules& wanted) {
  std::string key = tool(v6, table);
  EM_TRY(ChainRules present, read_table(v6, table));
  if (rules_right(present, wanted)) return false;
  if (auto it = printed_as_.find(key); it != printed_as_.end() && it->second.wrote == wanted &&
                                       rules_right(present, it->second.printed))
    return false;
  std::string transaction = render_transaction(table, present, wanted);
  std::vector<std::string> argv{tool(v6, "-restore"), "--noflush", "-w"};
  EM_TRY(auto result, run(argv, transaction));
  if (result.exit_status != 0) return fail(explain(argv, result));

  EM_TRY(ChainRules now, read_table(v6, table));
  ChainRules ours;
  for (const auto& [chain, rules] : wanted)
    if (auto it = now.find(chain); it != now.end() && it->second.size() == rules.size())
      ours[chain] = it->second;
  printed_as_[key] = {wanted, ours};
  if (!rules_right(now, wanted) && !rules_right(now, ours))
    return fail(ErrorCode::kConflict, "the {} rules of {} changed while they were written", table,
                tool(v6));
  return true;
}

Result<bool> HostNetwork::ensure_rules(const CaptureConfig& config, CaptureMode mode, bool v6) {
  auto nat = ensure_table(v6, "nat", wanted_rules(config, mode, "nat", v6));
  if (!nat && mode == CaptureMode::kRedirect) return fail(nat.error());
  EM_TRY(bool mangle, ensure_table(v6, "mangle", wanted_rules(config, mode, "mangle", v6)));
  if (!nat) EM_LOG(kDebug, "capture", "no nat table: {}", nat.error().message);
  return mangle || (nat && *nat);
}

Result<bool> HostNetwork::ensure_routing(const CaptureConfig& config, CaptureMode mode, bool v6) {
  bool changed = false;
  std::string fam = family(v6);
  std::string rules = output({"ip", fam, "rule", "show"});
  bool wanted = false;
  for (const Cidr& cidr : config.service_cidrs) wanted |= cidr.base.is_v6() == v6;

  if (mode == CaptureMode::kTproxy && wanted) {
    std::string mark = fmt::format("{:#x}", config.mark);
    std::string table = std::to_string(config.table);
    if (!contains(rules, fmt::format("fwmark {} lookup {}", mark, table))) {
      EM_TRY_VOID(must({"ip", fam, "rule", "add", "pref", std::to_string(config.rule_preference),
                        "fwmark", mark, "lookup", table}));
      changed = true;
    }
    if (!contains(output({"ip", fam, "route", "show", "table", table}), "local default dev lo")) {
      EM_TRY_VOID(
          must({"ip", fam, "route", "replace", "local", "default", "dev", "lo", "table", table}));
      changed = true;
    }
  }
  auto source = std::find_if(config.dns_addresses.begin(), config.dns_addresses.end(),
                             [v6](const IpAddr& ip) { return ip.is_v6() == v6; });
  if (source == config.dns_addresses.end()) return changed;
  EM_TRY(bool last_resort, ensure_last_resort(config, *source, rules));
  return changed || last_resort;
}

Result<bool> HostNetwork::ensure_last_resort(const CaptureConfig& config, const IpAddr& source,
                                             std::string_view rules) {
  bool changed = false;
  std::string fam = family(source.is_v6());
  std::string table = std::to_string(last_resort_table(config));
  for (const Cidr& cidr : config.service_cidrs) {
    if (cidr.base.is_v6() != source.is_v6()) continue;
    // TCP to services has the DNS address as its source: a connection of this machine then outlives
    // the address of the uplink. Marked packets are the agent's own and keep their way.
    auto has = [&](const char* mark) {  // the tool prints the mask, or leaves it out
      return contains(rules, fmt::format("to {} fwmark {} ipproto tcp lookup {}", cidr.to_string(),
                                         mark, table));
    };
    if (!has("0") && !has("0/0xffffffff"))
      changed |= succeeds({"ip", fam, "rule", "add", "pref",
                           std::to_string(config.rule_preference + 1), "to", cidr.to_string(),
                           "fwmark", "0/0xffffffff", "ipproto", "tcp", "lookup", table});
    if (contains(rules, fmt::format("to {} lookup {}", cidr.to_string(), table))) continue;
    EM_TRY_VOID(must({"ip", fam, "rule", "add", "pref", std::to_string(kLastResortPreference), "to",
                      cidr.to_string(), "lookup", table}));
    changed = true;
  }
  if (!contains(output({"ip", fam, "route", "show", "table", table}), "default dev ")) {
    for (const std::string& device : {config.interface, std::string("lo")}) {
      if (!succeeds({"ip", fam, "route", "replace", "default", "dev", device, "src",
                     source.to_string(), "table", table}))
        continue;
      changed = true;
      break;
    }
  }
  return changed;
}

Result<bool> HostNetwork::ensure_dns_addresses(const CaptureConfig& config) {
  bool changed = false;
  for (const IpAddr& ip : config.dns_addresses) {
    EM_TRY(bool added, ensure_dns_address(config, ip));
    changed = changed || added;
  }
  return changed;
}

Result<bool> HostNetwork::ensure_dns_address(const CaptureConfig& config, const IpAddr& ip) {
  std::string fam = family(ip.is_v6());
  std::string text = ip.to_string();
  if (contains(output({"ip", "-o", fam, "addr", "show", "to", text}), text)) return false;
  std::string device = config.interface;
  if (!succeeds({"ip", "-o", "link", "show", "dev", device}) &&
      !succeeds({"ip", "link", "add", device, "type", "dummy"}))
    device = "lo";  // a kernel without the dummy device
  EM_TRY_VOID(must({"ip", "link", "set", device, "up"}));
  std::vector<std::string> add{
      "ip", fam, "addr", "replace", text + (ip.is_v6() ? "/128" : "/32"), "dev", device};
  if (ip.is_v6()) add.emplace_back("nodad");
  EM_TRY_VOID(must(add));
  return true;
}

Result<> HostNetwork::remove_rules(bool v6) {
  Result<> first{};
  for (std::string_view table : {"mangle", "nat"}) {
    auto present = read_table(v6, table);
    if (!present) {
      // No such table, no rules of ours. Missing rights are told.
      if (present.error().code == ErrorCode::kPermissionDenied && first)
        first = fail(present.error());
      continue;
    }
    std::string transaction = render_transaction(table, *present, {});
    if (transaction.empty()) continue;
    std::vector<std::string> argv{tool(v6, "-restore"), "--noflush", "-w"};
    auto result = run(argv, transaction);
    if (!result && first)
      first = fail(result.error());
    else if (result && result->exit_status != 0 && first)
      first = fail(explain(argv, *result));
  }
  printed_as_.clear();
  return first;
}

void HostNetwork::remove_routing(const CaptureConfig& config, bool v6) {
  std::string fam = family(v6);
  std::string table = std::to_string(config.table);
  std::string last = std::to_string(last_resort_table(config));
  // Rules may be there several times; each deletion takes one.
  for (int i = 0; i < 16; ++i)
    if (!succeeds({"ip", fam, "rule", "del", "lookup", table})) break;
  for (int i = 0; i < 64; ++i)
    if (!succeeds({"ip", fam, "rule", "del", "lookup", last})) break;
  succeeds({"ip", fam, "route", "flush", "table", table});
  succeeds({"ip", fam, "route", "flush", "table", last});
}

void HostNetwork::remove_dns_addresses(const CaptureConfig& config) {
  if (config.dns_addresses.empty()) return;
  if (succeeds({"ip", "-o", "link", "show", "dev", config.interface}))
    succeeds({"ip", "link", "del", config.interface});
  for (const IpAddr& address : config.dns_addresses) {
    std::string fam = family(address.is_v6());
    std::string text = address.to_string();
    if (contains(output({"ip", "-o", fam, "addr", "show", "dev", "lo", "to", text}), text))
      succeeds({"ip", fam, "addr", "del", text + (address.is_v6() ? "/128" : "/32"), "dev", "lo"});
  }
}

}  // namespace edgemesh::proxy
