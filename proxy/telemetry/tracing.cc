#include "proxy/telemetry/tracing.h"

#include <algorithm>
#include <cstring>

#include "core/http/message.h"

namespace edgemesh::proxy {

namespace {

using Sampling = TraceContext::Sampling;

constexpr std::string_view kTraceParent = "traceparent", kTraceState = "tracestate", kB3 = "b3",
                           kB3Trace = "x-b3-traceid", kB3Span = "x-b3-spanid",
                           kB3Parent = "x-b3-parentspanid", kB3Sampled = "x-b3-sampled",
                           kB3Flags = "x-b3-flags";
constexpr size_t kTraceParentBytes = 55;  // of version 00

// -1: no digit. W3C allows lower case only, B3 both.
int digit(char c, bool upper) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return upper && c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool parse_hex(std::string_view text, uint8_t* out, size_t count, bool upper) {
  if (text.size() != 2 * count) return false;
  for (size_t i = 0; i < count; ++i) {
    const int high = digit(text[2 * i], upper), low = digit(text[2 * i + 1], upper);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

template <size_t N>
bool parse_id(std::string_view text, bool upper, std::array<uint8_t, N>* out) {
  return parse_hex(text, out->data(), N, upper) && *out != std::array<uint8_t, N>{};
}

// The only field of that name; false when there is none or more than one.
bool only_field(const Head& head, std::string_view name, std::string_view* value) {
  size_t count = 0;
  for (const FieldView& field : head.fields()) {
    if (!http::equals_ignore_case(field.name, name)) continue;
    *value = field.value;
    ++count;
  }
  return count == 1;
}

// Section 3.2.2. Later versions are read as far as this one goes.
bool parse_traceparent(std::string_view text, TraceContext* out) {
  uint8_t version = 0, flags = 0;
  if (text.size() < kTraceParentBytes || !parse_hex(text.substr(0, 2), &version, 1, false) ||
      version == 0xff)
    return false;
  if (text.size() > kTraceParentBytes && (version == 0 || text[kTraceParentBytes] != '-'))
    return false;
  if (text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  if (!parse_id(text.substr(3, 32), false, &out->trace_id) ||
      !parse_id(text.substr(36, 16), false, &out->span_id) ||
      !parse_hex(text.substr(53, 2), &flags, 1, false))
    return false;
  out->sampling = (flags & 1) != 0 ? Sampling::kYes : Sampling::kNo;
  out->has_ids = true;
  out->forms |= TraceContext::kW3c;
  return true;
}

bool is_key_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '*' ||
         c == '/' || c == '@';
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Section 3.3.1: list-members are "key=value"; empty ones are allowed, at most 32 count.
bool valid_state(std::string_view text, size_t* members) {
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view member = trim(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (member.empty()) continue;
    const size_t equals = member.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals > 256) return false;
    const std::string_view key = member.substr(0, equals), value = member.substr(equals + 1);
    if (!std::all_of(key.begin(), key.end(), is_key_char) || value.empty() || value.size() > 256)
      return false;
    for (const char c : value)
      if (c < 0x20 || c > 0x7e || c == '=') return false;
    if (++*members > 32) return false;
  }
  return true;
}

bool valid_states(const Head& head) {
  size_t bytes = 0, members = 0;
  for (const FieldView& field : head.fields()) {
    if (!http::equals_ignore_case(field.name, kTraceState)) continue;
    bytes += field.value.size();
    if (bytes > kMaxTraceState || !valid_state(field.value, &members)) return false;
  }
  return true;
}

// 128 bits, or 64 that are the low ones.
bool parse_b3_trace(std::string_view text, TraceContext* out) {
  if (text.size() == 32) return parse_id(text, true, &out->trace_id);
  std::array<uint8_t, 8> low{};
  if (!parse_id(text, true, &low)) return false;
  out->trace_id = {};
  std::copy(low.begin(), low.end(), out->trace_id.begin() + 8);
  return true;
}

bool parse_b3_sampling(std::string_view text, TraceContext* out) {
  if (text == "d") out->debug = true;
  if (text == "1" || text == "d" || text == "true")
    out->sampling = Sampling::kYes;
  else if (text == "0" || text == "false")
    out->sampling = Sampling::kNo;
  else
    return false;
  return true;
}

// "0", or "trace-span", "trace-span-sampling", "trace-span-sampling-parent".
bool parse_b3(std::string_view text, TraceContext* out) {
  out->forms = TraceContext::kB3Single;
  if (text.size() == 1) return parse_b3_sampling(text, out);
  std::string_view parts[4];
  size_t count = 0;
  for (bool more = true; more; ++count) {
    if (count == 4) return false;
    const size_t dash = text.find('-');
    more = dash != std::string_view::npos;
    parts[count] = text.substr(0, dash);
    if (more) text.remove_prefix(dash + 1);
  }
  if (count < 2 || !parse_b3_trace(parts[0], out) || !parse_id(parts[1], true, &out->span_id))
    return false;
  if (count > 2 && (parts[2].size() != 1 || !parse_b3_sampling(parts[2], out))) return false;
  std::array<uint8_t, 8> parent{};
  if (count > 3 && !parse_id(parts[3], true, &parent)) return false;
  return out->has_ids = true;
}

bool parse_b3_fields(const Head& head, TraceContext* out) {
  std::string_view trace, span, sampled, flags;
  const bool has_trace = only_field(head, kB3Trace, &trace);
  const bool has_span = only_field(head, kB3Span, &span);
  out->forms = TraceContext::kB3Multi;
  bool decided = only_field(head, kB3Sampled, &sampled);
  if (decided && !parse_b3_sampling(sampled, out)) return false;
  if (only_field(head, kB3Flags, &flags) && flags == "1") {
    out->debug = decided = true;
    out->sampling = Sampling::kYes;
  }
  if (!has_trace || !has_span) return decided && !has_trace && !has_span;
  if (!parse_b3_trace(trace, out) || !parse_id(span, true, &out->span_id)) return false;
  return out->has_ids = true;
}

template <size_t N>
void put_number(uint64_t value, std::array<uint8_t, N>* out, size_t at) {
  for (size_t i = 0; i < 8; ++i) (*out)[at + i] = static_cast<uint8_t>(value >> (56 - 8 * i));
}

void inject_w3c(const TraceContext& context, Head* head) {
  char* text = head->allocate(kTraceParentBytes);
  std::memcpy(text, "00-", 3);
  put_hex(context.trace_id.data(), 16, text + 3);
  text[35] = '-';
  put_hex(context.span_id.data(), 8, text + 36);
  std::memcpy(text + 52, context.sampled() ? "-01" : "-00", 3);
  head->remove(kTraceParent);
  head->add_kept(kTraceParent, {text, kTraceParentBytes});
}

void inject_b3(const TraceContext& context, Head* head) {
  char* text = head->allocate(51);
  put_hex(context.trace_id.data(), 16, text);
  text[32] = '-';
  put_hex(context.span_id.data(), 8, text + 33);
  text[49] = '-';
  text[50] = context.debug ? 'd' : context.sampled() ? '1' : '0';
  if ((context.forms & TraceContext::kB3Single) != 0) head->add_kept(kB3, {text, 51});
  if ((context.forms & TraceContext::kB3Multi) == 0) return;
  head->add_kept(kB3Trace, {text, 32});
  head->add_kept(kB3Span, {text + 33, 16});
  if (context.parent_id != std::array<uint8_t, 8>{}) {
    char* parent = head->allocate(16);
    put_hex(context.parent_id.data(), 8, parent);
    head->add_kept(kB3Parent, {parent, 16});
  }
  if (context.debug)
    head->add_kept(kB3Flags, "1");
  else
    head->add_kept(kB3Sampled, context.sampled() ? "1" : "0");
}

}  // namespace

void put_hex(const uint8_t* bytes, size_t count, char* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; ++i) {
    *out++ = kDigits[bytes[i] >> 4];
    *out++ = kDigits[bytes[i] & 15];
  }
}

TraceContext extract(const Head& head) {
  TraceContext out;
  std::string_view text;
  if (only_field(head, kTraceParent, &text) && parse_traceparent(text, &out)) {
    // Those who also sent B3 get B3 again.
    if (head.has(kB3)) out.forms |= TraceContext::kB3Single;
    if (head.has(kB3Trace)) out.forms |= TraceContext::kB3Multi;
    out.drop_state = !valid_states(head);
    return out;
  }
  out = {};
  if (!only_field(head, kB3, &text) || !parse_b3(text, &out)) {
    out = {};
    if (!parse_b3_fields(head, &out)) out = {};
  }
  out.drop_state = true;  // it belongs to a traceparent
  return out;
}

void inject(const TraceContext& context, Head* head) {
  for (const auto name : {kB3, kB3Trace, kB3Span, kB3Parent, kB3Sampled, kB3Flags})
    head->remove(name);
  inject_w3c(context, head);
  if ((context.forms & (TraceContext::kB3Single | TraceContext::kB3Multi)) != 0)
    inject_b3(context, head);
  if (context.drop_state) head->remove(kTraceState);
}

bool begin_span(const Head& head, model::PerMillion share, const TraceRandom& random,
                TraceContext* context) {
  *context = extract(head);
  if (context->forms == 0 && share == 0) return false;
  if (context->has_ids) {
    context->parent_id = context->span_id;
  } else {
    put_number(random.trace_high, &context->trace_id, 0);
    put_number(random.trace_low | 1, &context->trace_id, 8);  // never zero
  }
  put_number(random.span | 1, &context->span_id, 0);
  if (context->sampling == Sampling::kUndecided) {
    // Of the trace's own number, so that all who use the same share decide the same.
    uint64_t low = 0;
    for (size_t i = 8; i < 16; ++i) low = low << 8 | context->trace_id[i];
    const uint64_t draw = ((low >> 32) * model::kAlways) >> 32;
    context->sampling = draw < share ? Sampling::kYes : Sampling::kNo;
  }
  return true;
}

}  // namespace edgemesh::proxy
