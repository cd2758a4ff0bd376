// ServiceAddresses: hands out the cluster addresses and node ports of services. Knows what is in
// use from the stored services; what a write reserved is given back when the write fails.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "cloud/api/error.h"
#include "core/base/net_addr.h"

namespace edgemesh::cloud {

// The address at this place in the block.
IpAddr service_address(const Cidr& block, uint64_t offset);

class ServiceAddresses {
 public:
  ServiceAddresses(std::vector<Cidr> blocks, uint16_t first_port, uint16_t last_port);

  // Fills clusterIP, clusterIPs, ipFamilies, ipFamilyPolicy and nodePort where they are wanted and
  // missing, checks what is given. `before`: the stored service, or null. What was newly taken is
  // in `taken`.
  struct Taken {
    std::vector<std::string> ips;
    std::vector<uint16_t> ports;
  };
  void assign(nlohmann::json* service, const nlohmann::json* before, FieldErrors* errors,
              Taken* taken);
  void release(const Taken& taken);

  // A stored service appeared, or went.
  void use(const nlohmann::json& service);
  void forget(const nlohmann::json& service);

 private:
  void assign_ips(nlohmann::json* spec, const nlohmann::json* before, FieldErrors* errors,
                  Taken* taken);
  void assign_ports(nlohmann::json* spec, const nlohmann::json* before, FieldErrors* errors,
                    Taken* taken);
  std::string choose_ip(const nlohmann::json& spec, FieldErrors* errors);
  bool take_ip(const IpAddr& ip, FieldErrors* errors, Taken* taken);
  const Cidr* block_of(bool v6) const;
  std::string pick(const Cidr& block);
  uint16_t pick_port();

  std::vector<Cidr> blocks_;
  uint16_t first_port_, last_port_;
  std::unordered_set<std::string> ips_;
  std::unordered_set<uint16_t> ports_;
  std::minstd_rand random_;
};

}  // namespace edgemesh::cloud
