#include "proxy/compress/negotiate.h"

#include <algorithm>

#include "core/http/message.h"

namespace edgemesh::proxy {

namespace {

using http::equals_ignore_case;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The next part of a list up to `separator`; `rest` goes on behind it.
std::string_view next_part(std::string_view* rest, char separator) {
  const size_t end = std::min(rest->find(separator), rest->size());
  const std::string_view part = trim(rest->substr(0, end));
  rest->remove_prefix(std::min(end + 1, rest->size()));
  return part;
}

// "q=0.8" in thousandths; a weight that cannot be read counts as 0.
int weight_of(std::string_view parameters) {
  while (!parameters.empty()) {
    const std::string_view one = next_part(&parameters, ';');
    if (one.size() < 3 || (one[0] != 'q' && one[0] != 'Q') || one[1] != '=') continue;
    const std::string_view value = one.substr(2);
    if (value[0] == '1') return 1000;
    if (value[0] != '0') return 0;
    int thousandths = 0, scale = 100;
    for (size_t i = 2; i < value.size() && i < 5; ++i, scale /= 10) {
      if (value[i] < '0' || value[i] > '9') return 0;
      thousandths += (value[i] - '0') * scale;
    }
    return thousandths;
  }
  return 1000;
}

struct Weights {
  int gzip = -1, zstd = -1, any = -1, identity = -1;  // -1: not named
};

Weights read_weights(const Head& request) {
  Weights out;
  for (const FieldView& field : request.fields()) {
    if (!equals_ignore_case(field.name, "accept-encoding")) continue;
    std::string_view rest = field.value;
    while (!rest.empty()) {
      std::string_view item = next_part(&rest, ',');
      const std::string_view name = next_part(&item, ';');
      const int weight = weight_of(item);
      if (equals_ignore_case(name, "gzip") || equals_ignore_case(name, "x-gzip")) out.gzip = weight;
      if (equals_ignore_case(name, "zstd")) out.zstd = weight;
      if (equals_ignore_case(name, "identity")) out.identity = weight;
      if (name == "*") out.any = weight;
    }
  }
  return out;
}

constexpr std::string_view kTypes[] = {
    "application/javascript", "application/json",  "application/xml", "application/xhtml+xml",
    "image/svg+xml",          "text/css",          "text/html",       "text/plain",
    "text/xml",               "text/event-stream", "text/javascript", "application/wasm"};

bool worth_it(const model::Compression& spec, std::string_view type) {
  const std::string_view media = trim(type.substr(0, type.find(';')));
  if (spec.types.empty())
    return std::any_of(std::begin(kTypes), std::end(kTypes), [media](std::string_view known) {
      return equals_ignore_case(known, media);
    });
  return std::any_of(spec.types.begin(), spec.types.end(), [media](const std::string& known) {
    return equals_ignore_case(known, media);
  });
}

}  // namespace

Coding choose_coding(const model::Compression& spec, const Head& request) {
  const Weights weights = read_weights(request);
  auto weight = [&weights](int named) { return named >= 0 ? named : std::max(weights.any, 0); };
  const int zstd = spec.zstd ? weight(weights.zstd) : 0;
  const int gzip = spec.gzip ? weight(weights.gzip) : 0;
  const int best = std::max(zstd, gzip);
  if (best == 0 || best < weights.identity) return Coding::kNone;
  return zstd >= gzip ? Coding::kZstd : Coding::kGzip;
}

bool may_encode(const model::Compression& spec, const Head& request, const Head& answer) {
  const int status = answer.status;
  if (status < 200 || status == 204 || status == 206 || status == 304) return false;
  if (request.method == "HEAD") return false;
  if (answer.has("content-encoding") || answer.has("content-range")) return false;
  if (answer.has_length && answer.length < spec.min_size) return false;
  if (!worth_it(spec, answer.get("content-type"))) return false;
  if (answer.get("cache-control").find("no-transform") != std::string_view::npos) return false;
  const std::string_view etag = answer.get("etag");
  return etag.empty() || etag.starts_with("W/") || spec.weaken_etag;
}

void note_encoded(const model::Compression& spec, Coding coding, Head* answer) {
  answer->drop_length();
  answer->remove("accept-ranges");
  answer->remove("content-md5");
  answer->add_kept("content-encoding", to_string(coding));
  const std::string_view etag = answer->get("etag");
  if (spec.weaken_etag && !etag.empty() && !etag.starts_with("W/"))
    answer->set("etag", "W/" + std::string(etag));
}

void add_vary(Head* answer) {
  for (const FieldView& field : answer->fields()) {
    if (!equals_ignore_case(field.name, "vary")) continue;
    std::string_view rest = field.value;
    while (!rest.empty()) {
      const std::string_view name = next_part(&rest, ',');
      if (name == "*" || equals_ignore_case(name, "accept-encoding")) return;
    }
  }
  answer->add_kept("vary", "accept-encoding");
}

}  // namespace edgemesh::proxy
