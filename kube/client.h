// Client: the Kubernetes API as the controllers see it. Two implementations (in cloud/): on the
// embedded store, in process, and over HTTP to any kube-apiserver.
//
// Bodies and objects are JSON text. All calls return at once; callbacks run on the client's loop,
// never from within the call, and not after the client was destroyed. Errors carry a code that a
// caller can act on (kNotFound, kAlreadyExists, kConflict, kGone, kInvalidArgument,
// kPermissionDenied, kUnauthenticated, kUnavailable, ...) and the server's message.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/clock.h"
#include "core/base/function.h"
#include "core/base/result.h"
#include "kube/types.h"

namespace edgemesh::kube {

struct ListOptions {
  std::string label_selector;
  std::string field_selector;
  int64_t limit = 0;  // 0: all
  std::string continue_token;
};

enum class PatchKind { kMerge, kStrategic, kJson, kApply };

struct WriteOptions {
  std::string subresource;  // "status"
  std::string field_manager = "edgemesh";
  bool dry_run = false;
  bool force = false;  // kApply only
};

struct DeleteOptions {
  std::string uid;               // precondition, empty: none
  std::string resource_version;  // precondition, empty: none
  std::string propagation = "Background";
  int grace_s = -1;  // gracePeriodSeconds; -1: the object's own
};

enum class EventType { kAdded, kModified, kDeleted, kBookmark };

// The views are valid during the callback. A bookmark has only the resource version. The resource
// version of a deletion is that of the deletion.
struct WatchEvent {
  EventType type;
  std::string_view ns, name, resource_version;
  std::string_view object;
};

struct WatchOptions {
  // Events after this version. Empty or "0": what exists comes first, as kAdded.
  std::string resource_version;
  std::string label_selector;
  std::string field_selector;
  bool bookmarks = true;
  Duration timeout = std::chrono::minutes(5);  // the server ends the watch; 0: the server's default
};

struct WatchHandler {
  UniqueFunction<void(const WatchEvent&)> on_event;
  // Once, last. kCancelled: the server ended the watch in order; kGone: list again.
  UniqueFunction<void(const Error&)> on_end;
};

// A running watch; destroying it ends it (allowed in its callbacks), and no callback runs
// afterwards.
class Watch {
 public:
  virtual ~Watch() = default;
};

class Client {
 public:
  using Callback = UniqueFunction<void(Result<std::string>)>;
  virtual ~Client() = default;

  virtual void get(const ResourceType& type, std::string_view ns, std::string_view name,
                   Callback done) = 0;
  // The answer is the List object. ns empty: all namespaces.
  virtual void list(const ResourceType& type, std::string_view ns, const ListOptions& options,
                    Callback done) = 0;
  virtual void create(const ResourceType& type, std::string_view ns, std::string body,
                      const WriteOptions& options, Callback done) = 0;
  // With metadata.resourceVersion in the body: only if the object has not changed since.
  virtual void update(const ResourceType& type, std::string_view ns, std::string_view name,
                      std::string body, const WriteOptions& options, Callback done) = 0;
  virtual void patch(const ResourceType& type, std::string_view ns, std::string_view name,
                     PatchKind kind, std::string body, const WriteOptions& options,
                     Callback done) = 0;
  virtual void remove(const ResourceType& type, std::string_view ns, std::string_view name,
                      const DeleteOptions& options, Callback done) = 0;
  [[nodiscard]] virtual std::unique_ptr<Watch> watch(const ResourceType& type, std::string_view ns,
                                                     const WatchOptions& options,
                                                     WatchHandler handler) = 0;
};

}  // namespace edgemesh::kube
