// The packet filter rules that bring connections and datagrams for services to the proxy, as text. Pure
// functions: what is written, what the tools print back, and whether the two agree. See capture.h
// for the flow.
//
// Chains of ours: EDGEMESH_PREROUTING and EDGEMESH_OUTPUT, in mangle and nat. Up to four
// rules a service CIDR and chain, whatever the number of services. Datagrams are captured by TPROXY
// alone: REDIRECT does not tell where they were sent to.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"

namespace edgemesh::proxy {

enum class CaptureMode {
  kAuto,      // TPROXY, and REDIRECT where the kernel has no TPROXY
  kTproxy,    // mangle TPROXY and a routing rule
  kRedirect,  // nat REDIRECT and SO_ORIGINAL_DST
};
std::string_view to_string(CaptureMode mode);

struct CaptureConfig {
  std::vector<Cidr> service_cidrs;  // IPv4 and IPv6; a family without a CIDR is left alone
  CaptureMode mode = CaptureMode::kAuto;
  uint16_t tproxy_port = 15001;  // TCP and UDP
  uint16_t redirect_port = 15002;
  uint32_t own_mark = 0x4d45;  // packets of the agent itself: never captured
  uint32_t mark = 0x4d46;      // captured packets
  uint32_t table = 19782;      // routing table that sends captured packets to this host
  uint32_t rule_preference = 97;
  // Addresses of the mesh's DNS server, at most one a family, on an interface of its own.
  std::vector<IpAddr> dns_addresses;
  std::string interface = "edgemesh0";
  // The kernel shows packets that come from a port of a bridge (pods of most CNI plugins) to these
  // rules in the bridge alone (net.bridge.bridge-nf-call-iptables, -ip6tables). What TPROXY finds
  // for them is lost on the way up from there.
  bool bridged_v4 = false, bridged_v6 = false;
  std::string bridge_settings = "/proc/sys/net/bridge";  // where that is read
  // Whether this host has a bridge at all; empty: the kernel is asked.
  std::function<bool()> has_bridge = {};
};

// What one table holds: per chain the rules as `iptables -S` prints them, without "-A CHAIN ".
using ChainRules = std::map<std::string, std::vector<std::string>>;

// Collects the -A lines of `iptables -S` or `iptables-save` output.
ChainRules parse_rules(std::string_view printed);

// The rules wanted in our chains of `table` ("mangle" or "nat"), in the tools' own notation. `mode`
// is kTproxy or kRedirect. Empty: nothing is wanted in that table.
ChainRules wanted_rules(const CaptureConfig& config, CaptureMode mode, std::string_view table,
                        bool v6);

// True when our chains hold exactly `wanted` and each is entered by the first rule of its hook.
bool rules_right(const ChainRules& present, const ChainRules& wanted);

// Input for `iptables-restore --noflush`: makes one table right in one transaction, from whatever
// state `present` tells. With empty `wanted`: takes everything of ours out.
std::string render_transaction(std::string_view table, const ChainRules& present,
                               const ChainRules& wanted);

}  // namespace edgemesh::proxy
