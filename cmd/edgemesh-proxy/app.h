// App: the data plane on its own: worker threads, an L7Proxy with the configuration of a file, the
// admin endpoint. Threads: the main loop's.
#pragma once

#include <memory>
#include <string>

#include "cmd/edgemesh-proxy/admin.h"
#include "core/io/loop.h"
#include "core/io/resolver.h"
#include "core/obs/metrics.h"
#include "proxy/listener/config_file.h"
#include "proxy/listener/l7_proxy.h"
#include "proxy/proxy.h"

namespace edgemesh::cmd {

struct ProxyFlags {
  std::string config = "/etc/edgemesh/proxy.yaml";
  std::string admin = "127.0.0.1:15000";  // empty: none
  std::string node, zone;
  int workers = 1;
  int drain_seconds = 10;
};

class ProxyApp {
 public:
  // Serves when it returns. `inherited`: sockets of the process before; looked at during the call
  // only.
  static Result<std::unique_ptr<ProxyApp>> create(io::Loop& loop, const ProxyFlags& flags,
                                                  proxy::InheritedSockets& inherited);
  ~ProxyApp();
  // Reads the configuration again; on an error the one before stays. Access logs are opened again.
  void reload(proxy::ConfigFile::Done done);
  // Drains and stops the loop. A second call does not wait.
  void shut_down(proxy::Drain how = proxy::Drain::kNow);
  // For the process after this one, as they are now.
  std::vector<std::pair<std::string, int>> listening_sockets() const;
  // It has taken them over: ends with its last connection.
  void hand_over();
  proxy::L7Proxy& l7() { return *l7_; }

 private:
  ProxyApp(io::Loop& loop, ProxyFlags flags) : loop_(loop), flags_(std::move(flags)) {}
  AdminSources sources();
  std::string admin_key() const;  // its socket's, among those that are handed over
  Result<> open_admin(proxy::InheritedSockets& inherited);

  io::Loop& loop_;
  ProxyFlags flags_;
  obs::Registry registry_;
  std::unique_ptr<io::Resolver> resolver_;
  std::unique_ptr<proxy::Proxy> threads_;
  std::unique_ptr<proxy::Telemetry> telemetry_;
  std::unique_ptr<proxy::L7Proxy> l7_;
  std::unique_ptr<proxy::ConfigFile> file_;
  std::unique_ptr<AdminServer> admin_;
  bool draining_ = false;
};

}  // namespace edgemesh::cmd
