// AccessLogger: the access logs of a listener's chain, compiled. One line a finished request.
//
// Text: the format as it stands, a newline added when it has none; empty: Envoy's default. Control
// characters that come out of values become '?', so that nothing a peer sends begins a new line.
// JSON: one object a line, members in the order of the configuration. A member whose format is one
// operator is a number when the operator is (status, bytes, milliseconds, attempts, ports), null when
// the value is not known; all other members are strings, with "-" for what is not known.
// Limits: values are cut at kMaxValue, a text at AccessLogWriter::kMaxLine; a JSON object that grows
// beyond it gets null for the rest, so it always can be parsed.
// Immutable and thread-safe; log() allocates nothing once the lane's buffers have grown.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/telemetry.h"
#include "proxy/route/format.h"
#include "proxy/telemetry/access_log_writer.h"

namespace edgemesh::proxy {

class AccessLogger {
 public:
  static constexpr size_t kMaxValue = 4096;  // bytes of a JSON member, before escaping
  static constexpr size_t kMaxNames = 8192;  // bytes of all names and constants of a JSON log

  // What Envoy writes when no format is given.
  static std::string_view default_format();
  // Null when `logs` is empty. Errors name the log's path and what is wrong in its format.
  static Result<std::shared_ptr<const AccessLogger>> make(const std::vector<model::AccessLog>& logs,
                                                          AccessLogWriter& writer);
  // What make() would say of the formats.
  static Result<> check(const std::vector<model::AccessLog>& logs);
  // `lane` is this thread's.
  void log(AccessLogWriter::Lane& lane, const LogFacts& facts) const;

 private:
  struct Member {
    std::string before;  // {"name": or ,"name": and, for a plain format, its value, too
    Format format;
    bool plain = false, single = false, number = false;
  };
  struct Log {
    std::shared_ptr<LogFile> file;
    Format text;
    bool many_lines = false;  // the format itself has line breaks
    std::vector<Member> members;
    int min_status = 0;
  };
  static Result<Log> make_log(const model::AccessLog& spec, AccessLogWriter* writer);
  static void write_text(const Log& log, const LogFacts& facts, std::string* line);
  static void write_json(const Log& log, const LogFacts& facts, std::string* line,
                         std::string* value);
  std::vector<Log> logs_;
};

}  // namespace edgemesh::proxy
