// Private to proxy/model: the parts of the YAML form.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/config/reader.h"
#include "proxy/model/config.h"

namespace edgemesh::proxy::model {

using config::Reader;

TextMatch read_text_match(Reader reader);
FieldMatch read_field_match(Reader reader, bool query);
std::vector<TextMatch> read_text_matches(Reader& reader, std::string_view key);
std::vector<FieldMatch> read_field_matches(Reader& reader, std::string_view key,
                                           bool query = false);
void read_route_match(Reader reader, RouteMatch& out);
void check_regex(Reader& reader, std::string_view key, const std::string& pattern);
// "12.5": percent.
void read_percent(Reader& reader, std::string_view key, PerMillion* out);
std::vector<std::pair<std::string, std::string>> read_pairs(Reader& reader, std::string_view key);
// At most 1 MiB, also of a device. The error names the file.
Result<std::string> read_file(const std::string& file);
// Text in place or from a file; both keys together are an error.
void read_text_or_file(Reader& reader, std::string_view key, std::string_view file_key,
                       std::string* text, std::string* file);
void lower(std::string& text);

void read_header_mutations(Reader reader, HeaderMutations& out);
void read_hash_policies(Reader& reader, std::vector<HashPolicy>& out);
Part<Rbac> read_rbac(Reader& reader);
void read_policies(Reader reader, RoutePolicies& out);
Part<Jwt> read_jwt(Reader& reader);
RouteConfigPtr read_route_config(Reader reader);
WeightedCluster read_weighted_cluster(Reader reader);
ListenerPtr read_listener(Reader reader);
void read_access_logs(Reader& reader, std::vector<AccessLog>& out);
void read_telemetry(Reader reader, Telemetry& out);

}  // namespace edgemesh::proxy::model
