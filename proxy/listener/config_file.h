// ConfigFile: the file with listeners, routes and clusters, read again while the proxy runs. It is
// read, checked and compared with the configuration in force on a thread of the pool; the loop only
// puts in force what changed. Threads: the loop given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"
#include "proxy/listener/l7_proxy.h"

namespace edgemesh::proxy {

class ConfigFile {
 public:
  using Done = UniqueFunction<void(Result<>)>;

  // `proxy` outlives this, or this is destroyed before its next turn.
  ConfigFile(io::Loop& loop, L7Proxy& proxy, std::string path);
  ~ConfigFile();
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;

  // The file as it is now instead of what is in force; on an error that stays. One is read at a
  // time: who asks meanwhile is answered by one more reading after it. `done` runs in a later turn,
  // and not when this is destroyed.
  void reload(Done done);

 private:
  void begin();
  void finish(Result<std::shared_ptr<const model::Config>> read);

  io::Loop& loop_;
  L7Proxy& proxy_;
  const std::string path_;
  std::vector<Done> running_, waiting_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::proxy
