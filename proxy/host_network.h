// HostNetwork: makes packet filter, routing and the DNS address of this host what capture needs, by
// running iptables, iptables-restore and ip. Each ensure_* reads the state first and changes
// nothing where it is right; it returns whether it changed something. Threads: no state but what it
// learned of the tools' notation; one caller at a time.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/io/process.h"
#include "proxy/capture_rules.h"

namespace edgemesh::proxy {

// Whether this network namespace has a bridge.
bool host_has_bridge();

class HostNetwork {
 public:
  explicit HostNetwork(io::Executor& executor) : executor_(executor) {}

  // iptables, iproute2 and the right to use them; the error says what to do.
  Result<> check_tools(bool v4, bool v6);

  // Whether this host's tools of the family write nftables: only then does the kernel tell of changes. The
  // legacy ones' rules can only be looked at.
  bool tells_of_changes(bool v6);

  // All tables of one family. With kTproxy the nat table may be missing: then nobody rewrites
  // destinations either.
  Result<bool> ensure_rules(const CaptureConfig& config, CaptureMode mode, bool v6);
  // kTproxy: the rule and the route that bring marked packets to this host. Both modes: a route of
  // last resort for the service CIDRs, where the family has a DNS address.
  Result<bool> ensure_routing(const CaptureConfig& config, CaptureMode mode, bool v6);
  Result<bool> ensure_dns_addresses(const CaptureConfig& config);

  // Take out everything of ours. First error of those that mean that something was left.
  Result<> remove_rules(bool v6);
  void remove_routing(const CaptureConfig& config, bool v6);
  void remove_dns_addresses(const CaptureConfig& config);

 private:
  Result<bool> ensure_dns_address(const CaptureConfig& config, const IpAddr& ip);
  Result<bool> ensure_last_resort(const CaptureConfig& config, const IpAddr& source,
                                  std::string_view rules);
  Result<io::ProcessResult> run(const std::vector<std::string>& argv, std::string_view input = {});
  Result<> must(const std::vector<std::string>& argv);
  bool succeeds(const std::vector<std::string>& argv);
  std::string output(const std::vector<std::string>& argv);
  Result<ChainRules> read_table(bool v6, std::string_view table);
  Result<bool> ensure_table(bool v6, std::string_view table, const ChainRules& wanted);

  io::Executor& executor_;
  // How this host's tools print what we wrote, where that differs from our notation; by table.
  struct Printed {
    ChainRules wrote;
    ChainRules printed;
  };
  std::map<std::string, Printed> printed_as_;
};

}  // namespace edgemesh::proxy
