// What requests are compared with: texts, fields, query parameters, labels of the source.
// Immutable configuration; see route.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/net_addr.h"
#include "proxy/model/cluster.h"

namespace edgemesh::proxy::model {

struct TextMatch {
  enum class Kind : uint8_t { kExact, kPrefix, kSuffix, kContains, kRegex };
  Kind kind = Kind::kExact;
  std::string text;  // a regex (RE2) must match the whole value
  bool ignore_case = false;
  friend bool operator==(const TextMatch&, const TextMatch&) = default;
};

// A field, or a query parameter. Several fields of one name are compared as one value, joined by
// ','. Absent: does not match (but kPresent with invert), unless absent_as_empty. `invert` turns
// the result of a field that is there around; of an absent one for kPresent only, as in Envoy.
struct FieldMatch {
  enum class Kind : uint8_t { kPresent, kText, kRange };
  Kind kind = Kind::kPresent;
  std::string name;  // fields: in lower case
  TextMatch text;
  int64_t first = 0, last = 0;  // kRange: a decimal number, first <= value < last
  bool invert = false;
  bool absent_as_empty = false;
  friend bool operator==(const FieldMatch&, const FieldMatch&) = default;
};

struct PathMatch {
  enum class Kind : uint8_t {
    kPrefix,         // "/api" matches "/apiary"
    kExact,          // without the query
    kSegmentPrefix,  // "/api" matches "/api" and "/api/x", not "/apiary"; no '/' at the end
    kRegex,          // RE2, the whole path without the query
    kConnect,        // any CONNECT request
  };
  Kind kind = Kind::kPrefix;
  std::string path = "/";
  bool ignore_case = false;
  friend bool operator==(const PathMatch&, const PathMatch&) = default;
};

// All of it must match.
struct RouteMatch {
  PathMatch path;
  std::vector<std::string> methods;  // any of them; empty: all
  std::vector<FieldMatch> headers;   // :method, :path, :authority and :scheme are names, too
  std::vector<FieldMatch> query;
  Labels source_labels;
  std::vector<Cidr> source_ips;  // any of them; empty: all
  bool grpc = false;             // content-type application/grpc
  // A share of the requests, by chance; out of 1,000,000.
  uint32_t per_million = 1'000'000;
  friend bool operator==(const RouteMatch&, const RouteMatch&) = default;
};

// A chance: out of 1,000,000, so that all of Envoy's denominators fit.
using PerMillion = uint32_t;
inline constexpr PerMillion kAlways = 1'000'000;

}  // namespace edgemesh::proxy::model
