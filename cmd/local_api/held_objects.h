// HeldObjects: what the node's metastore holds, in the form that the API's server answers from.
//
// Versions (metadata.resourceVersion) are the node's own: they rise with every change as it arrives
// here, which is not the order of the cloud's, and go on above all earlier ones after a restart. So
// a watch that begins at a version of an earlier run, or of long ago, is answered with 410 Gone,
// and its client lists again. What goes to the cloud gets the cloud's version back
// (to_cloud_version). Namespaces are those that something held is in. Threads: the loop given.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "agent/metastore.h"
#include "cloud/api/core.h"
#include "core/channel/resource.h"

namespace edgemesh::cmd {

class HeldObjects {
 public:
  struct Options {
    size_t history_changes = 1024;   // a resource
    size_t history_bytes = 2 << 20;  // a resource
  };
  // Reads what is stored, and listens to the metastore from then on (its one observer).
  static Result<std::unique_ptr<HeldObjects>> create(io::Loop& loop, agent::Metastore& metastore,
                                                     const Options& options);
  ~HeldObjects();
  HeldObjects(const HeldObjects&) = delete;
  HeldObjects& operator=(const HeldObjects&) = delete;

  cloud::ApiCore& core() { return *core_; }
  const cloud::ResourceRegistry& registry() const { return registry_; }
  // The cloud's version of the object whose version here is `version`; none: it is no version of
  // what is held now.
  std::optional<std::string> to_cloud_version(const cloud::ResourceInfo& resource,
                                              std::string_view ns, std::string_view name,
                                              std::string_view version) const;
  size_t size() const { return cloud_versions_.size(); }

 private:
  HeldObjects(io::Loop& loop, agent::Metastore& metastore);
  Result<> open(const Options& options);
  uint64_t first_version();
  void on_row(const std::string& key, std::string_view type, const std::string* value);
  void set(const cloud::ResourceInfo& resource, const channel::ResourceName& name,
           std::string_view text);
  void remove(const cloud::ResourceInfo& resource, const channel::ResourceName& name);
  void count_namespace(const std::string& ns, int change);

  io::Loop& loop_;
  agent::Metastore& metastore_;
  cloud::ResourceRegistry registry_;
  std::unique_ptr<cloud::ApiStore> store_;
  std::unique_ptr<cloud::ApiCore> core_;
  std::map<std::string, const cloud::ResourceInfo*, std::less<>> kinds_;  // by the metastore's type
  std::unordered_map<std::string, std::string> cloud_versions_;           // by the metastore's key
  std::map<std::string, size_t> namespaces_;                              // objects in each
};

}  // namespace edgemesh::cmd
