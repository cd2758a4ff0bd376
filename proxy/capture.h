// Capture: sends TCP connections and UDP datagrams for the service CIDRs to the proxy's listeners.
//
//   pod -> PREROUTING mangle: TPROXY to tproxy_port (first packets, datagrams), mark 0x4d46 (all)
//   own process -> OUTPUT mangle: mark 0x4d46 -> rule fwmark 0x4d46 -> table 19782 (local, via lo)
//               -> PREROUTING mangle: TPROXY as above
//   nat PREROUTING and OUTPUT: what is marked 0x4d46 is accepted before other programs' DNAT rules
// What comes out of a bridge while net.bridge.bridge-nf-call-iptables is 1 goes by REDIRECT for TCP, and
// not at all for UDP: the socket that TPROXY finds in the bridge is lost on the way to the host.
// Without TPROXY: REDIRECT to redirect_port in nat PREROUTING and OUTPUT, for TCP alone.
//
// Where no route leads to a service address (a node whose uplink is down has no default route), a
// last routing rule gives one, so that local services stay reachable. Only packets to the service
// CIDRs are touched: when the agent is killed, nothing else is affected. The rules are checked on
// netfilter and routing events (and every 30 s; every 2 s where events cannot be had, as with
// iptables-legacy) and repaired when another program changed them. Reverse path filtering needs no
// change, unless net.ipv4.conf.*.src_valid_mark is 1: that is reported. Threads: the loop's thread;
// after install() the tools run on the loop's pool, one check at a time, and the loop waits for none
// but at the end.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/io/loop.h"
#include "core/io/process.h"
#include "proxy/capture_rules.h"

namespace edgemesh::proxy {

class Capture {
 public:
  // Installs the rules (blocking, about 50 ms). Does nothing where they are right already. Errors
  // say what is missing: iptables, iproute2, CAP_NET_ADMIN.
  static Result<std::unique_ptr<Capture>> install(io::Loop& loop, io::Executor& executor,
                                                  CaptureConfig config);
  // Takes the rules out, unless leave() was called.
  ~Capture();

  // The mode in use: kTproxy or kRedirect. Never blocks.
  CaptureMode mode() const;
  // Why UDP is not captured, in one line; empty when it is. It does not change after install().
  std::string udp_missing() const;
  // New service CIDRs (they come from the cloud). Does not block: the rules follow soon, those of the newest call
  // where several come at once; what fails is in last_error() and tried again.
  Result<> update(std::vector<Cidr> service_cidrs);
  // One check now, blocking: true when something had to be repaired.
  Result<bool> verify();
  uint64_t repairs() const;
  std::string last_error() const;  // of the last check, empty when it went well
  // The destructor shall leave the rules (a restart of the agent follows).
  void leave();

  // For `edgemesh reset`, and after a kill -9: removes whatever a Capture with this configuration
  // could have left. It is no error when nothing is there.
  static Result<> remove_all(io::Executor& executor, const CaptureConfig& config = {});

 private:
  struct Impl;
  explicit Capture(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::proxy
