// Config: all that a proxy is told. Immutable; a change makes a new Config whose unchanged parts
// are the same objects (compare pointers). Thread-safe to read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/cluster.h"
#include "proxy/model/listener.h"
#include "proxy/model/overload.h"
#include "proxy/model/route.h"
#include "proxy/model/telemetry.h"

namespace edgemesh::proxy::model {

using ClusterPtr = std::shared_ptr<const Cluster>;
template <class T>
using ByName = std::map<std::string, std::shared_ptr<const T>, std::less<>>;

struct Config {
  ByName<Listener> listeners;
  ByName<RouteConfig> routes;
  ByName<Cluster> clusters;
  Telemetry telemetry;
  Overload overload;
};

// YAML; configs/proxy.yaml shows it. The error names file, line, key, value and what is allowed. A
// name that leads nowhere (route to cluster, listener to routes) is an error, and so is a regex
// that does not compile. Files that it names (certificates, JWKS) are read.
Result<std::shared_ptr<const Config>> load_config(const std::string& file);
// `name` stands for the file in errors.
Result<std::shared_ptr<const Config>> parse_config(std::string_view text, std::string name);

// `fresh` with the objects of `before` wherever they are equal, so that who looks for changes
// compares pointers, and what is the same is in memory once.
std::shared_ptr<const Config> share_unchanged(std::shared_ptr<const Config> fresh,
                                              const Config& before);

// The files that a configuration took certificates, keys and JWKS from, and, when their content is
// another one than then, the configuration with what they say now; null: nothing changed. Objects
// without changes are the same. Errors name the file. Blocking.
struct ConfigFiles {
  std::vector<std::string> files;
  std::shared_ptr<const Config> changed;
};
Result<ConfigFiles> read_files_again(const Config& config);

}  // namespace edgemesh::proxy::model
