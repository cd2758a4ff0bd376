#include "proxy/capture_rules.h"

#include <algorithm>

namespace edgemesh::proxy {

namespace {

struct Hook {
  std::string_view hook;   // the built-in chain
  std::string_view chain;  // ours, entered from it
};
constexpr Hook kHooks[] = {{"PREROUTING", "EDGEMESH_PREROUTING"}, {"OUTPUT", "EDGEMESH_OUTPUT"}};

std::string jump_to(std::string_view chain) {
  return fmt::format("-j {}", chain);
}

// Some versions of the tools print two ("-m physdev  --physdev-is-in").
std::string one_space(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' || out.empty() || out.back() != ' ') out += c;
  }
  return out;
}

std::string first_word(std::string_view text) {
  return std::string(text.substr(0, text.find(' ')));
}

size_t count_jumps(const ChainRules& present, const Hook& hook) {
  auto it = present.find(std::string(hook.hook));
  if (it == present.end()) return 0;
  return static_cast<size_t>(std::count(it->second.begin(), it->second.end(), jump_to(hook.chain)));
}

// Every datagram is sent to the listener: it alone knows the flows. Our own DNS server has an address
// of this host, and what is sent to those is left alone, inside of a service range too.
void add_udp_rules(const CaptureConfig& config, const Cidr& cidr, bool v6,
                   std::vector<std::string>* pre, std::vector<std::string>* out) {
  std::string foreign =
      fmt::format("-d {} -p udp -m mark ! --mark {:#x} -m addrtype ! --dst-type LOCAL",
                  cidr.to_string(), config.own_mark);
  pre->push_back(fmt::format("{} -j TPROXY --on-port {} --on-ip {} --tproxy-mark {:#x}/0xffffffff",
                             foreign, config.tproxy_port, v6 ? "::1" : "127.0.0.1", config.mark));
  out->push_back(fmt::format("{} -j MARK --set-xmark {:#x}/0xffffffff", foreign, config.mark));
}

constexpr std::string_view kSyn = "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN";

// Connections that come out of a bridge go by REDIRECT, beside TPROXY for all else. Their first packet
// decides; later ones of a connection that TPROXY took earlier still get its mark.
void add_bridged_rule(const CaptureConfig& config, const Cidr& cidr, std::string_view table,
                      std::vector<std::string>* pre) {
  const std::string bridged = fmt::format("-d {} -p tcp {} -m physdev --physdev-is-in",
                                          cidr.to_string(), kSyn);
  if (table == "mangle") return pre->push_back(bridged + " -j RETURN");
  pre->push_back(fmt::format("{} -m addrtype ! --dst-type LOCAL -j REDIRECT --to-ports {}", bridged,
                             config.redirect_port));
}

}  // namespace

std::string_view to_string(CaptureMode mode) {
  switch (mode) {
    case CaptureMode::kAuto: return "auto";
    case CaptureMode::kTproxy: return "tproxy";
    case CaptureMode::kRedirect: return "redirect";
  }
  return "?";
}

ChainRules parse_rules(std::string_view printed) {
  ChainRules chains;
  while (!printed.empty()) {
    size_t end = std::min(printed.find('\n'), printed.size());
    std::string_view line = printed.substr(0, end);
    printed.remove_prefix(std::min(end + 1, printed.size()));
    if (line.starts_with("-N ") || line.starts_with("-P ")) {
      chains[first_word(line.substr(3))];
    } else if (line.starts_with(':')) {
      chains[first_word(line.substr(1))];
    } else if (line.starts_with("-A ")) {
      line.remove_prefix(3);
      std::string chain = first_word(line);
      line.remove_prefix(std::min(chain.size() + 1, line.size()));
      while (line.ends_with(' ')) line.remove_suffix(1);
      chains[chain].push_back(one_space(line));
    }
  }
  return chains;
}

ChainRules wanted_rules(const CaptureConfig& config, CaptureMode mode, std::string_view table,
                        bool v6) {
  ChainRules wanted;
  auto& pre = wanted["EDGEMESH_PREROUTING"];
  auto& out = wanted["EDGEMESH_OUTPUT"];
  for (const Cidr& cidr : config.service_cidrs) {
    if (cidr.base.is_v6() != v6) continue;
    // An address of this host inside the service range stays reachable as it was.
    std::string foreign =
        fmt::format("-d {} -p tcp -m mark ! --mark {:#x} -m addrtype ! --dst-type LOCAL",
                    cidr.to_string(), config.own_mark);
    if (mode == CaptureMode::kTproxy && (v6 ? config.bridged_v6 : config.bridged_v4))
      add_bridged_rule(config, cidr, table, &pre);
    if (mode == CaptureMode::kRedirect) {
      if (table != "nat") continue;
      std::string rule = fmt::format("{} -j REDIRECT --to-ports {}", foreign, config.redirect_port);
      pre.push_back(rule);
      out.push_back(rule);
    } else if (table == "mangle") {
      // TPROXY is for the first packet of a connection alone. The later ones only need the mark, and
      // with it the route to this host: there the kernel finds their socket, and the route that the
      // socket remembers. TPROXY would have both looked up for each packet.
      pre.push_back(fmt::format(
          "-d {} -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m mark ! --mark {:#x} -j MARK "
          "--set-xmark {:#x}/0xffffffff",
          cidr.to_string(), config.own_mark, config.mark));
      pre.push_back(fmt::format(
          "-d {} -p tcp {} -m mark ! --mark {:#x} -m addrtype ! --dst-type LOCAL -j TPROXY "
          "--on-port {} --on-ip {} --tproxy-mark {:#x}/0xffffffff",
          cidr.to_string(), kSyn, config.own_mark, config.tproxy_port, v6 ? "::1" : "127.0.0.1",
          config.mark));
      out.push_back(fmt::format("{} -j MARK --set-xmark {:#x}/0xffffffff", foreign, config.mark));
      add_udp_rules(config, cidr, v6, &pre, &out);
    } else {
      // Others' DNAT rules come later in this hook and would change the destination.
      for (std::string_view protocol : {"tcp", "udp"}) {
        std::string rule = fmt::format("-d {} -p {} -m mark --mark {:#x} -j ACCEPT",
                                       cidr.to_string(), protocol, config.mark);
        pre.push_back(rule);
        out.push_back(rule);
      }
    }
  }
  if (pre.empty()) wanted.clear();
  return wanted;
}

bool rules_right(const ChainRules& present, const ChainRules& wanted) {
  for (const Hook& hook : kHooks) {
    std::string chain(hook.chain);
    auto want = wanted.find(chain);
    auto have = present.find(chain);
    if (want == wanted.end()) {
      if (have != present.end() || count_jumps(present, hook) != 0) return false;
      continue;
    }
    if (have == present.end() || have->second != want->second) return false;
    auto entry = present.find(std::string(hook.hook));
    if (entry == present.end() || entry->second.empty() ||
        entry->second.front() != jump_to(hook.chain) || count_jumps(present, hook) != 1)
      return false;
  }
  return true;
}

std::string render_transaction(std::string_view table, const ChainRules& present,
                               const ChainRules& wanted) {
  std::string chains;
  std::string jumps;
  std::string rules;
  for (const Hook& hook : kHooks) {
    std::string chain(hook.chain);
    auto want = wanted.find(chain);
    for (size_t i = count_jumps(present, hook); i > 0; --i)
      jumps += fmt::format("-D {} {}\n", hook.hook, jump_to(hook.chain));
    if (want == wanted.end()) {
      if (present.contains(chain)) rules += fmt::format("-F {0}\n-X {0}\n", chain);
      continue;
    }
    // Naming a chain of our own empties it: with --noflush nothing else is touched.
    chains += fmt::format(":{} - [0:0]\n", chain);
    jumps += fmt::format("-I {} 1 {}\n", hook.hook, jump_to(hook.chain));
    for (const auto& rule : want->second) rules += fmt::format("-A {} {}\n", chain, rule);
  }
  if (chains.empty() && jumps.empty() && rules.empty()) return "";
  return fmt::format("*{}\n{}{}{}COMMIT\n", table, chains, jumps, rules);
}

}  // namespace edgemesh::proxy
