// The node's certificate, its key and the mesh's CA, as files in the state dir:
//   ca.crt (0644)   node.crt (0644)   node.key (0600)
// A key and certificate that belong together are replaced in an order that a crash cannot break: the
// new pair is complete under other names before it takes over, and load finishes what was begun.
#pragma once

#include <string>

#include "core/base/result.h"

namespace edgemesh::agent {

struct Identity {
  std::string node;
  std::string trust_domain;  // of the node's SPIFFE id
  std::string cert_pem, key_pem, ca_pem;
  int64_t not_before = 0;  // Unix seconds
  int64_t not_after = 0;
  bool expired(int64_t now) const { return now >= not_after; }
};

// kNotFound: the node has not joined; the message says how to.
Result<Identity> load_identity(const std::string& state_dir);
// Makes the directory (0700) when it is missing. Blocking.
Result<> save_identity(const std::string& state_dir, const Identity& identity);
// Fills node and validity from the certificate and checks that key, certificate and CA fit.
Result<Identity> make_identity(std::string cert_pem, std::string key_pem, std::string ca_pem);

// Makes the directory (0700), and those above it, when it is missing.
Result<> make_state_dir(const std::string& path);
// Of a join that has not got its certificate yet.
inline constexpr const char* kJoinKeyFile = "/join.key";

// Writes a file so that it is there whole or not at all, and survives a power cut.
Result<> write_file_atomically(const std::string& path, std::string_view content, int mode);
Result<std::string> read_file(const std::string& path, size_t max_bytes = 1 << 20);

}  // namespace edgemesh::agent
