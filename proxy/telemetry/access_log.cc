#include "proxy/telemetry/access_log.h"

#include "proxy/telemetry/json_text.h"

namespace edgemesh::proxy {

std::string_view AccessLogger::default_format() {
  return "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" "
         "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
         "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
         "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
}

Result<std::shared_ptr<const AccessLogger>> AccessLogger::make(
    const std::vector<model::AccessLog>& logs, AccessLogWriter& writer) {
  if (logs.empty()) return std::shared_ptr<const AccessLogger>();
  auto out = std::make_shared<AccessLogger>();
  for (const auto& spec : logs) {
    auto log = make_log(spec, &writer);
    if (!log) return fail(log.error().with_context("access log " + spec.path));
    out->logs_.push_back(std::move(*log));
  }
  return std::shared_ptr<const AccessLogger>(std::move(out));
}

Result<> AccessLogger::check(const std::vector<model::AccessLog>& logs) {
  for (const auto& spec : logs)
    if (auto log = make_log(spec, nullptr); !log)
      return fail(log.error().with_context("access log " + spec.path));
  return {};
}

Result<AccessLogger::Log> AccessLogger::make_log(const model::AccessLog& spec,
                                                 AccessLogWriter* writer) {
  Log log;
  log.min_status = spec.min_status;
  if (writer != nullptr) {
    EM_TRY(log.file, writer->file(spec.path));
  }
  if (spec.json.empty()) {
    std::string text = spec.format.empty() ? std::string(default_format()) : spec.format;
    if (!text.ends_with('\n')) text += '\n';
    log.many_lines = text.find('\n') + 1 != text.size();
    EM_TRY(log.text, Format::make(text));
    return log;
  }
  size_t names = 0;
  for (const auto& [name, format] : spec.json) {
    Member member;
    member.before += log.members.empty() ? '{' : ',';
    member.before += '"';
    append_json(name, &member.before);
    member.before += "\":";
    EM_TRY(member.format, Format::make(format));
    member.plain = member.format.plain();
    member.single = member.format.single_operator();
    member.number = member.format.number();
    if (member.plain) {
      member.before += '"';
      append_json(member.format.literal(), &member.before);
      member.before += '"';
    }
    names += member.before.size() + sizeof "null}";
    log.members.push_back(std::move(member));
  }
  if (names > kMaxNames)
    return fail(ErrorCode::kInvalidArgument, "names and constant values are longer than {} bytes",
                kMaxNames);
  return log;
}

void AccessLogger::log(AccessLogWriter::Lane& lane, const LogFacts& facts) const {
  for (const Log& log : logs_) {
    if (facts.status < log.min_status) continue;
    std::string& line = lane.scratch();
    line.clear();
    if (log.members.empty())
      write_text(log, facts, &line);
    else
      write_json(log, facts, &line, &lane.value_scratch());
    lane.put(*log.file, line);
  }
}

void AccessLogger::write_text(const Log& log, const LogFacts& facts, std::string* line) {
  log.text.write(facts, line);
  if (line->size() > AccessLogWriter::kMaxLine) {
    line->resize(AccessLogWriter::kMaxLine);
    line->back() = '\n';
  }
  const char allowed = log.many_lines ? '\n' : '\t';
  for (size_t i = 0; i + 1 < line->size(); ++i) {
    char& c = (*line)[i];
    const bool bad = (static_cast<uint8_t>(c) < 0x20 && c != '\t' && c != allowed) || c == 0x7f;
    c = bad ? '?' : c;
  }
}

void AccessLogger::write_json(const Log& log, const LogFacts& facts, std::string* line,
                              std::string* value) {
  // Room for one more value, escaped, and for all names.
  constexpr size_t kFull = AccessLogWriter::kMaxLine - 6 * kMaxValue - kMaxNames;
  for (const Member& member : log.members) {
    line->append(member.before);
    if (member.plain) continue;
    if (line->size() > kFull) {
      line->append("null");
      continue;
    }
    value->clear();
    member.format.write(facts, value, member.single ? "" : "-");
    if (value->size() > kMaxValue) value->resize(kMaxValue);
    if (member.single && value->empty()) {
      line->append("null");
    } else if (member.number) {
      line->append(*value);
    } else {
      *line += '"';
      append_json(*value, line);
      *line += '"';
    }
  }
  line->append("}\n");
}

}  // namespace edgemesh::proxy
