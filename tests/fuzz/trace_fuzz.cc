// Trace context of any fields ("name:value" a line): what was taken comes out again in the same trace,
// and what we write is valid.
#include <cstdlib>
#include <string_view>

#include "proxy/telemetry/json_text.h"
#include "proxy/telemetry/tracing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh::proxy;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  Head head;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    head.add(line.substr(0, colon), line.substr(colon + 1));
  }
  std::string json;
  append_json({reinterpret_cast<const char*>(data), size}, &json);
  for (const char c : json)
    if (static_cast<uint8_t>(c) < 0x20) std::abort();

  const TraceContext came = extract(head);
  TraceContext context;
  if (!begin_span(head, 500'000, {data != nullptr ? size : 0, 7, 9}, &context)) std::abort();
  if (came.has_ids && (context.trace_id != came.trace_id || context.parent_id != came.span_id))
    std::abort();
  inject(context, &head);
  const TraceContext again = extract(head);
  if (!again.has_ids || again.trace_id != context.trace_id || again.span_id != context.span_id ||
      again.sampling != context.sampling || again.forms != (context.forms | TraceContext::kW3c) ||
      again.drop_state)
    std::abort();
  return 0;
}
