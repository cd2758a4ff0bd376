// The proxy's pages on its admin endpoint (cmd/admin has health, metrics, log levels and who may
// ask; cmd/proxy_pages clusters, listeners, routes, stats, traffic).
//   GET  /config_dump
//   POST /drain /reload
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cmd/admin/admin_server.h"
#include "proxy/listener/config_file.h"
#include "proxy/listener/l7_proxy.h"

namespace edgemesh::cmd {

struct AdminSources {
  proxy::L7Proxy* l7 = nullptr;
  proxy::Telemetry* telemetry = nullptr;
  std::function<bool()> draining;
  std::function<void()> drain;
  std::function<void(proxy::ConfigFile::Done)> reload;
};

// `socket`: listens already; an invalid one: it is opened.
Result<std::unique_ptr<AdminServer>> make_admin(io::Loop& loop, const SockAddr& listen,
                                                obs::Registry& registry,
                                                const AdminSources& sources, io::Fd socket);

}  // namespace edgemesh::cmd
