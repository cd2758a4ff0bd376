// Resolver: asks DNS servers by c-ares on a Loop. Two uses: look up the addresses of a host name (hosts
// file, then DNS), and pass on a whole DNS message. Answers that are truncated over UDP are asked for
// again over TCP; a server that fails or refuses is passed over for the next one.
//
// Threads: the loop's. Callbacks never run from within a call of a method; no callback runs after the
// resolver was destroyed. A callback may destroy the resolver.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/function.h"
#include "core/base/net_addr.h"
#include "core/io/loop.h"

namespace edgemesh::io {

class Resolver {
 public:
  enum class Family { kAny, kV4, kV6 };

  struct Options {
    std::vector<SockAddr> servers;              // empty: those of /etc/resolv.conf
    Duration timeout = std::chrono::seconds(2);  // of one try; later rounds wait twice as long
    int tries = 2;                               // rounds over all servers
    uint32_t mark = 0;                           // SO_MARK of the sockets, 0: none
    size_t max_in_flight = 1024;                 // more are refused with kResourceExhausted
  };

  static Result<std::unique_ptr<Resolver>> create(Loop& loop, Options options);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  using OnAddresses = UniqueFunction<void(Result<std::vector<IpAddr>>)>;
  // At least one address, in the order to try. An address as text gives itself. kNotFound: the name
  // has none; kTimeout, kUnavailable: no server answered.
  void resolve(const std::string& name, Family family, OnAddresses done);

  // The same, with the time for which the answer may be kept: the least of its records'. Zero where
  // nothing says so (hosts file, an error).
  using OnResolved = UniqueFunction<void(Result<std::vector<IpAddr>>, Duration ttl)>;
  void resolve_with_ttl(const std::string& name, Family family, OnResolved done);

  // The bytes are valid until the callback returns.
  using OnAnswer = UniqueFunction<void(Result<std::span<const uint8_t>>)>;
  // `message` is one DNS query with an unpredictable id, its only additional record an OPT without
  // options at the end; it is sent as it is (without OPT to a server that does not know EDNS). The
  // answer has that id and question; it may say NXDOMAIN, but SERVFAIL and REFUSED of all servers are kUnavailable.
  void query(std::span<const uint8_t> message, OnAnswer done);

  size_t in_flight() const;
  // The servers in use, in order.
  const std::vector<SockAddr>& servers() const;

  // c-ares' side; private to resolver.cc.
  struct Impl;

 private:
  explicit Resolver(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// The name servers of a resolv.conf text, port 53.
std::vector<SockAddr> parse_resolv_conf(std::string_view text);

}  // namespace edgemesh::io
