// Audit: who asked the API for what, and what came of it: events of audit.k8s.io/v1, one JSON
// object a line, as a kube-apiserver writes them with --audit-log-path and a policy that leaves out
// the stage RequestReceived.
//
// - Stages: ResponseStarted (of watches and other answers in pieces), ResponseComplete.
// - Level Request adds the object that was sent. Never of secrets, config maps, token reviews and
//   requests for tokens: those stay at Metadata, and without the text of errors, which may quote
//   what was sent. Credentials stand in no event.
// - Requests for the server's health are left out.
// Threads: the API's loop; the file is written by a thread of its own.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/api/audit_file.h"
#include "cloud/api/auth.h"
#include "cloud/api/gate.h"
#include "core/base/clock.h"
#include "core/http/server.h"

namespace edgemesh::cloud {

enum class AuditLevel { kMetadata, kRequest };

struct AuditOptions {
  std::string file;  // empty: no audit log
  AuditLevel level = AuditLevel::kMetadata;
  int64_t max_megabytes = 100;  // of one file
  int max_files = 10;           // older ones that are kept
};

class Audit;

// One request's events, and the writer that its answer goes through.
class AuditRecord final : public http::ResponseWriter {
 public:
  AuditRecord(std::shared_ptr<Audit> audit, const http::Request& request,
              std::shared_ptr<http::ResponseWriter> inner);
  ~AuditRecord() override;
  AuditRecord(const AuditRecord&) = delete;
  AuditRecord& operator=(const AuditRecord&) = delete;

  void set_caller(const Caller& caller);
  void set_resource(const ResourcePath& path, const std::string& verb);
  void set_verb(const std::string& verb);  // of a path that is no resource
  void set_decision(bool allowed, const std::string& reason);
  // What was sent, as it was understood. `bytes`: of the body.
  void set_object(const nlohmann::json& object, size_t bytes);

  void respond(http::Response response) override;
  void start(int status, http::Headers headers) override;
  bool write(std::string_view data) override { return inner_->write(data); }
  void end() override;
  void on_drain(UniqueFunction<void()> callback) override { inner_->on_drain(std::move(callback)); }
  void on_close(UniqueFunction<void()> callback) override { inner_->on_close(std::move(callback)); }
  bool closed() const override { return inner_->closed(); }
  size_t queued_bytes() const override { return inner_->queued_bytes(); }
  Result<std::unique_ptr<io::Stream>> upgrade(http::Headers extra) override;

 private:
  void set_status(int status, const std::string* body);
  void emit(const char* stage);

  std::shared_ptr<Audit> audit_;
  std::shared_ptr<http::ResponseWriter> inner_;
  std::unique_ptr<nlohmann::json> event_;
  bool sensitive_ = false;
  bool complete_ = false;
};

class Audit : public std::enable_shared_from_this<Audit> {
 public:
  static Result<std::shared_ptr<Audit>> open(const Clock& clock, const AuditOptions& options);

  std::shared_ptr<AuditRecord> begin(const http::Request& request,
                                     std::shared_ptr<http::ResponseWriter> writer) {
    return std::make_shared<AuditRecord>(shared_from_this(), request, std::move(writer));
  }
  AuditLevel level() const { return level_; }
  const Clock& clock() const { return clock_; }
  AuditFile& file() { return *file_; }

 private:
  Audit(const Clock& clock, AuditLevel level, std::unique_ptr<AuditFile> file)
      : clock_(clock), level_(level), file_(std::move(file)) {}
  const Clock& clock_;
  const AuditLevel level_;
  std::unique_ptr<AuditFile> file_;
};

}  // namespace edgemesh::cloud
