// ConfigFile: the file with listeners, routes and clusters, read again while the proxy runs. It is
// read, checked and compared with the configuration in force on a thread of the pool; the loop only
// puts in force what changed.
//
// Files that it names (certificates, keys, JWKS) are watched: what changes in them is in force
// shortly after, without a reload. A pair that does not fit together, or text that is none, changes
// nothing, is logged and counted; connections that are open stay as they are. A certificate that
// ends within a week is in the log once a day. Threads: the loop given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/file_watch.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "proxy/listener/l7_proxy.h"

namespace edgemesh::proxy {

class ConfigFile {
 public:
  using Done = UniqueFunction<void(Result<>)>;

  // `proxy` has the file's configuration in force and outlives this, as `registry` does.
  ConfigFile(io::Loop& loop, L7Proxy& proxy, std::string path, obs::Registry& registry);
  ~ConfigFile();
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;

  // The file as it is now instead of what is in force; on an error that stays. One is read at a
  // time: who asks meanwhile is answered by one more reading after it. `done` runs in a later turn,
  // and not when this is destroyed.
  void reload(Done done);

 private:
  using ConfigPtr = std::shared_ptr<const model::Config>;
  struct Ready;  // to be put in force

  void next();
  void read_file();
  void finish_file(Result<Ready> ready);
  Result<> put_in_force(Ready ready);
  void read_named_files();
  void finish_named_files(Result<model::ConfigFiles> read);
  void check_expiry();

  io::Loop& loop_;
  L7Proxy& proxy_;
  const std::string path_;
  std::vector<Done> running_, waiting_;
  bool busy_ = false;
  bool look_again_ = false;  // at the named files
  std::vector<std::string> watched_;
  std::unique_ptr<io::FileWatch> watch_;  // null: the system gives none
  io::Timer expiry_timer_;
  obs::Counter& replaced_;
  obs::Counter& refused_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::proxy
