// FakeHost: an Executor that acts like iptables, ip6tables, their -restore, and ip, on maps.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/io/process.h"
#include "proxy/capture_rules.h"

namespace edgemesh::proxy {

class FakeHost final : public io::Executor {
 public:
  FakeHost() {
    for (const char* family : {"4", "6"})
      for (const char* table : {"mangle", "nat"})
        for (const char* chain : {"PREROUTING", "OUTPUT"}) chains[family][table][chain];
  }

  Result<io::ProcessResult> run(const std::vector<std::string>& argv, std::string_view input,
                                Duration) override {
    std::lock_guard lock(mutex);
    if (missing.contains(argv[0]))
      return fail(ErrorCode::kNotFound, "'{}' is not installed", argv[0]);
    io::ProcessResult result;
    result.exit_status = 0;
    std::string family = argv[0].starts_with("ip6") ? "6" : "4";
    if (slow) slow();
    if (argv.back() == "--version")
      result.out = legacy ? "iptables v1.8.9 (legacy)\n" : "iptables v1.8.9 (nf_tables)\n";
    else if (argv[0] == "ip")
      run_ip(argv, result);
    else if (!permitted)
      failed(result, 4, "iptables: Permission denied (you must be root).");
    else if (argv[0].ends_with("-restore"))
      restore(family, input, result);
    else
      list(family, argv, result);
    return result;
  }

  std::map<std::string, std::map<std::string, ChainRules>> chains;  // family, table
  std::set<std::string> rules, routes, links, addresses;
  std::set<std::string> missing;
  bool permitted = true;
  bool tproxy = true;
  bool dummy = true;
  bool legacy = false;
  std::function<void()> slow;  // runs in every call
  int transactions = 0;
  int changes = 0;  // of routing and addresses
  std::mutex mutex;

 private:
  static void failed(io::ProcessResult& result, int status, std::string text) {
    result.exit_status = status;
    result.err = text + "\n";
  }

  void list(const std::string& family, const std::vector<std::string>& argv,
            io::ProcessResult& result) {
    std::string only = argv.size() > 5 ? argv[5] : "";
    bool found = only.empty();
    for (const auto& [chain, list] : chains[family][argv.at(3)]) {
      if (!only.empty() && chain != only) continue;
      found = true;
      bool own = chain[0] == 'E';
      result.out += (own ? "-N " : "-P ") + chain + (own ? "\n" : " ACCEPT\n");
      for (const auto& rule : list) result.out += "-A " + chain + " " + rule + "\n";
    }
    if (!found) failed(result, 1, "iptables: No chain/target/match by that name.");
  }

  void restore(const std::string& family, std::string_view input, io::ProcessResult& result) {
    auto next = chains[family];
    std::istringstream lines{std::string(input)};
    std::string line, table;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string op, chain, rest;
      words >> op >> chain;
      std::getline(words, rest);
      if (!rest.empty()) rest.erase(0, 1);
      if (line[0] == '*') table = line.substr(1);
      if (line[0] == ':') next[table][line.substr(1, line.find(' ') - 1)].clear();
      if (!tproxy && rest.find("TPROXY") != std::string::npos)
        return failed(result, 2, "iptables-restore: unknown option --on-port");
      auto& list = next[table];
      if (op == "-A") list[chain].push_back(rest);
      if (op == "-I") list[chain].insert(list[chain].begin(), rest.substr(2));
      if (op == "-F") list[chain].clear();
      if (op == "-X") list.erase(chain);
      if (op == "-D") {
        auto it = std::find(list[chain].begin(), list[chain].end(), rest);
        if (it == list[chain].end()) return failed(result, 1, "iptables-restore: line failed");
        list[chain].erase(it);
      }
    }
    chains[family] = next;
    ++transactions;
  }

  static std::string join(const std::vector<std::string>& words, size_t from, size_t to) {
    std::string text;
    for (size_t i = from; i < to; ++i) text += (text.empty() ? "" : " ") + words[i];
    return text;
  }

  void run_ip(const std::vector<std::string>& argv, io::ProcessResult& result) {
    std::string all = join(argv, 1, argv.size());
    std::string family = argv[1];
    auto found = [&](bool ok) {
      if (!ok) failed(result, 2, "RTNETLINK answers: No such file or directory");
    };
    if (all.find("rule show") != std::string::npos) {
      for (const auto& rule : rules)
        if (rule.starts_with(family) || family == "rule") result.out += rule.substr(3) + "\n";
    } else if (all.find("rule add") != std::string::npos) {
      rules.insert(family + " " + argv[5] + ":\tfrom all " + join(argv, 6, argv.size()));
      ++changes;
    } else if (all.find("rule del lookup") != std::string::npos) {
      auto it = std::find_if(rules.begin(), rules.end(), [&](const std::string& rule) {
        return rule.starts_with(family) && rule.ends_with("lookup " + argv.back());
      });
      found(it != rules.end());
      if (it != rules.end()) rules.erase(it);
    } else if (all.find("route show") != std::string::npos) {
      for (const auto& route : routes)
        if (route.starts_with(family + " " + argv.back() + " "))
          result.out += route.substr(9) + "\n";
    } else if (all.find("route replace") != std::string::npos) {
      routes.insert(family + " " + argv.back() + " " + join(argv, 4, argv.size() - 2));
      ++changes;
    } else if (all.find("route flush") != std::string::npos) {
      std::erase_if(routes, [&](const std::string& route) {
        return route.starts_with(family + " " + argv.back() + " ");
      });
    } else if (all.find("addr show") != std::string::npos) {
      for (const auto& address : addresses)
        if (address.starts_with(argv.back() + "/")) result.out += "2: x inet " + address + "\n";
    } else if (all.find("addr replace") != std::string::npos) {
      addresses.insert(argv[4]);
      ++changes;
    } else if (all.find("addr del") != std::string::npos) {
      addresses.erase(argv[4]);
    } else if (all.find("link show") != std::string::npos) {
      found(links.contains(argv.back()));
    } else if (all.find("link add") != std::string::npos) {
      if (!dummy) return failed(result, 2, "Error: Unknown device type.");
      links.insert(argv[3]);
    } else if (all.find("link del") != std::string::npos) {
      links.erase(argv.back());
      addresses.clear();
    }
  }
};

}  // namespace edgemesh::proxy
