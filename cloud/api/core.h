// ApiCore: what a write to the Kubernetes API means, apart from HTTP: defaults, validation,
// optimistic locking, the three patch forms and apply, status, finalizers, life of namespaces,
// service addresses. The HTTP server and the in-process client both stand on it. Threads: the loop
// of the store. `done` may run from within the call when nothing is to be stored.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "cloud/api/auth.h"
#include "cloud/api/error.h"
#include "cloud/api/service_ip.h"
#include "cloud/api/store.h"
#include "kube/client.h"

namespace edgemesh::cloud {

class ApiCore {
 public:
  struct Options {
    // Cluster addresses of services are taken from here; at most one block a family.
    std::vector<Cidr> service_cidrs;  // empty: 10.96.0.0/16
    uint16_t node_port_first = 30000;
    uint16_t node_port_last = 32767;
    // Pods get a volume with the token of their service account, which must exist.
    bool mount_tokens = false;
  };
  struct Written {
    std::string
        text;  // the object as it is now (of a deletion: a Status, or the object if it stays)
    bool created = false;
    bool is_status = false;
  };
  using Done = UniqueFunction<void(ApiResult<Written>)>;

  // A write as it would be stored, for checks that look at who asks.
  struct Admission {
    const ResourceInfo& resource;
    std::string_view ns, name, subresource;
    const nlohmann::json* before;  // null: it is made
    const nlohmann::json* after;   // null: it is deleted; of binding and eviction: what was posted
    const ApiUser* user;           // null: this process itself
  };
  using AdmissionCheck = std::function<ApiResult<void>(const Admission&)>;
  void add_admission(AdmissionCheck check) { admission_.push_back(std::move(check)); }
  // Answers POST of serviceaccounts/token; without it there is no such thing.
  using TokenRequests = std::function<ApiResult<nlohmann::json>(const StoredObject& account,
                                                                const nlohmann::json& body)>;
  void set_token_requests(TokenRequests answer) { token_requests_ = std::move(answer); }
  // While it lives, calls are made for that user (who outlives it); otherwise for this process.
  class Acting {
   public:
    Acting(ApiCore& core, const ApiUser& user) : core_(core) { core_.acting_ = &user; }
    ~Acting() { core_.acting_ = nullptr; }
    Acting(const Acting&) = delete;
    Acting& operator=(const Acting&) = delete;

   private:
    ApiCore& core_;
  };

  ApiCore(io::Loop& loop, ApiStore& store, ResourceRegistry& registry, Options options);
  // Makes the namespaces that always exist. Call once, before serving.
  void start();

  void create(const ResourceInfo& resource, std::string_view ns, nlohmann::json body,
              const kube::WriteOptions& options, Done done);
  void update(const ResourceInfo& resource, std::string_view ns, std::string_view name,
              nlohmann::json body, const kube::WriteOptions& options, Done done);
  void patch(const ResourceInfo& resource, std::string_view ns, std::string_view name,
             kube::PatchKind kind, const nlohmann::json& patch, const kube::WriteOptions& options,
             Done done);

  struct Deletion {
    std::string uid, resource_version;  // preconditions
    int grace_s = -1;                   // -1: the object's own
    std::string propagation;
    bool dry_run = false;
  };
  void remove(const ResourceInfo& resource, std::string_view ns, std::string_view name,
              const Deletion& deletion, Done done);
  // POST of pods/binding, pods/eviction and serviceaccounts/token; `create` with a subresource in
  // its options comes here.
  void create_below(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                    const nlohmann::json& body, const kube::WriteOptions& options, Done done);
  // Everything the filter matches; `done` gets a List of what was there.
  void remove_all(const ResourceInfo& resource, const Filter& filter, const Deletion& deletion,
                  Done done);

  ApiStore& store() { return store_; }
  const ResourceRegistry& registry() const { return registry_; }
  io::Loop& loop() { return loop_; }

 private:
  ApiResult<void> prepare_new(const ResourceInfo& resource, std::string_view ns,
                              nlohmann::json* body);
  ApiResult<void> check_namespace(const ResourceInfo& resource, std::string_view ns);
  // Turns `body` into what is stored in place of `before`.
  ApiResult<void> prepare_change(const ResourceInfo& resource, const nlohmann::json& before,
                                 const StoredObject& stored, std::string_view subresource,
                                 nlohmann::json* body);
  void store_change(const ResourceInfo& resource, const ObjectPtr& previous,
                    const nlohmann::json& before, nlohmann::json body,
                    const kube::WriteOptions& options, Done done);
  void store_new(const ResourceInfo& resource, nlohmann::json body, bool dry_run, Done done);
  void apply_missing(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                     const nlohmann::json& patch, const kube::WriteOptions& options, Done done);
  void mark_deleted(const ResourceInfo& resource, const ObjectPtr& previous, int grace_s,
                    nlohmann::json finalizers, Done done);
  void update_scale(const ResourceInfo& resource, const ObjectPtr& previous,
                    const nlohmann::json& scale, const kube::WriteOptions& options, Done done);
  void bind_pod(const ResourceInfo& resource, const ObjectPtr& previous, const nlohmann::json& body,
                const kube::WriteOptions& options, Done done);
  void evict_pod(const ResourceInfo& resource, const ObjectPtr& previous,
                 const nlohmann::json& body, const kube::WriteOptions& options, Done done);
  // Null: no disruption budget speaks against it.
  std::unique_ptr<ApiError> budget_refuses(const ObjectPtr& pod) const;

  // CustomResourceDefinitions: serves what is defined, and keeps their status.
  // `previous`: what it was before; null: not known.
  void serve_custom(const StoredObject& definition, const ObjectPtr& previous);
  void check_custom(const std::string& name);
  void empty_custom(const std::string& name);
  void finish_custom(const std::string& name);
  void erase(const ResourceInfo& resource, const ObjectPtr& previous, Done done);
  void empty_namespace(const std::string& name);
  void finish_namespace(const std::string& name);
  void on_change(const ResourceInfo& resource, const Change& change);
  void note_event(const StoredObject& event);
  void expire_events();

  ApiResult<void> admit(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                        std::string_view subresource, const nlohmann::json* before,
                        const nlohmann::json* after) const;

  io::Loop& loop_;
  ApiStore& store_;
  ResourceRegistry& registry_;
  const bool mount_tokens_;
  ServiceAddresses addresses_;
  std::vector<AdmissionCheck> admission_;
  TokenRequests token_requests_;
  const ApiUser* acting_ = nullptr;

  // Events in the order of their last change; they go after an hour, or earlier when there are
  // many.
  struct SeenEvent {
    TimePoint when;
    std::string ns, name;
    uint64_t version;
  };
  std::deque<SeenEvent> events_;
  io::Timer events_timer_;
};

}  // namespace edgemesh::cloud
