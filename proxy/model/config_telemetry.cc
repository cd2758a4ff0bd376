// YAML of access logs, metrics and tracing.
#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

void read_access_logs(Reader& reader, std::vector<AccessLog>& out) {
  for (Reader item : reader.sections("accessLog")) {
    AccessLog& log = out.emplace_back();
    item.require("path");
    item.read("path", &log.path);
    item.read("format", &log.format);
    log.json = read_pairs(item, "json");
    item.read("minStatus", &log.min_status, 0, 599);
  }
}

void read_telemetry(Reader reader, Telemetry& out) {
  reader.read("metrics", &out.metrics);
  read_access_logs(reader, out.access_log);
  Reader tracing = reader.section("tracing");
  tracing.read("url", &out.tracing.url);
  if (!out.tracing.url.empty() && !out.tracing.url.starts_with("http://") &&
      !out.tracing.url.starts_with("https://"))
    tracing.reject("url", fmt::format("'{}' is not allowed (want http://HOST[:PORT]/v1/traces)",
                                      out.tracing.url));
  tracing.read("serviceName", &out.tracing.service_name);
  read_percent(tracing, "samplePercent", &out.tracing.share);
}

}  // namespace edgemesh::proxy::model
