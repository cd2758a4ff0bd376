// The node's identity on disk: <state dir>/ca.crt, node.crt, node.key (PEM, the key 0600), and the
// addresses of the cloud that gave it (cloud.json). Written whole or not at all.
#pragma once

#include <string>

#include "core/base/result.h"

namespace edgemesh::agent {

struct Identity {
  std::string node;  // from the certificate's CN, system:node:<node>
  std::string ca_pem, cert_pem, key_pem;
  int64_t not_before = 0, not_after = 0;  // Unix seconds
};

// kNotFound when the node has not joined.
Result<Identity> load_identity(const std::string& state_dir);
Result<> save_identity(const std::string& state_dir, const Identity& identity);

// Writes a file by a temporary one and a rename, synced. Makes the folder (0700) when it is missing.
Result<> write_file(const std::string& path, std::string_view content, int mode);
Result<std::string> read_file(const std::string& path, size_t max_bytes = 1 << 20);

// When a certificate should be renewed: at 70 to 90 % of its life, at a point that depends on the node,
// so that a fleet does not renew at once. Unix seconds.
int64_t renewal_time(const Identity& identity);

}  // namespace edgemesh::agent
