// LocalApi: the Kubernetes API on the node's loopback (KubeEdge's MetaServer), so that programs on
// the node work without the cloud.
//
// - get, list, watch and discovery of what the node holds (HeldObjects), by the same code as the
//   cloud's own API: selectors, pages, tables, bookmarks, 410 when a version is too old. With and
//   without a connection they are answered from here.
// - Everything else goes to the cloud (agent::CloudCalls) and counts as the node's own request; 503
//   without a connection.
// - Plain HTTP, no login: it listens on loopback only. Requests that a web page could have made are
//   refused (an Origin, or a Host that is not this machine).
// Threads: the loop given.
#pragma once

#include <memory>

#include "agent/metaserver/cloud_calls.h"
#include "cloud/api/server.h"
#include "cmd/local_api/held_objects.h"
#include "core/http/server.h"

namespace edgemesh::cmd {

class LocalApi {
 public:
  struct Options {
    SockAddr listen{IpAddr::loopback(), 10550};
    HeldObjects::Options objects;
    size_t max_watches = 256;
    size_t max_connections = 256;
    Duration bookmark_every = std::chrono::minutes(1);
  };
  static Result<std::unique_ptr<LocalApi>> create(io::Loop& loop, agent::Metastore& metastore,
                                                  agent::CloudCalls& cloud, Options options);
  ~LocalApi();

  SockAddr local_addr() const { return listener_->local_addr(); }
  void drain();  // ends watches in order, takes no new requests
  size_t objects() const { return held_->size(); }
  size_t watches() const { return server_->watches(); }

 private:
  LocalApi(io::Loop& loop, agent::CloudCalls& cloud) : loop_(loop), cloud_(cloud) {}
  void handle(http::Request request, std::shared_ptr<http::ResponseWriter> writer);
  void forward(const http::Request& request, const cloud::ResourcePath& path,
               const std::string& verb, std::shared_ptr<http::ResponseWriter> writer);
  // What the cloud is asked; an error is what the client gets.
  cloud::ApiResult<channel::Application> application(const http::Request& request,
                                                     const cloud::ResourcePath& path,
                                                     const std::string& verb) const;
  cloud::ApiResult<void> add_body(const http::Request& request, const cloud::ResourcePath& path,
                                  channel::Application* out) const;
  void restore_version(const cloud::ResourcePath& path, const std::string& name,
                       nlohmann::json* version) const;

  io::Loop& loop_;
  agent::CloudCalls& cloud_;
  std::unique_ptr<HeldObjects> held_;
  std::unique_ptr<cloud::ApiServer> server_;
  std::unique_ptr<http::Server> listener_;
};

}  // namespace edgemesh::cmd
