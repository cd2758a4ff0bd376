#include "proxy/telemetry/request_stats.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <iterator>

#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

namespace {

// Envoy's buckets, which Istio's histograms use: milliseconds, and bytes.
constexpr const char* kBoundTexts[kStatsBounds] = {
    "0.5",   "1",     "5",     "10",    "25",     "50",     "100",     "250",     "500",    "1000",
    "2500",  "5000",  "10000", "30000", "60000",  "300000", "600000",  "1800000", "3600000"};
constexpr uint64_t kMicros[kStatsBounds] = {
    500,       1'000,      5'000,      10'000,     25'000,      50'000,      100'000,
    250'000,   500'000,    1'000'000,  2'500'000,  5'000'000,   10'000'000,  30'000'000,
    60'000'000, 300'000'000, 600'000'000, 1'800'000'000, 3'600'000'000};
constexpr uint64_t kBytes[kStatsBounds] = {
    0,     1,     5,      10,     25,     50,      100,     250,    500, 1'000,
    2'500, 5'000, 10'000, 30'000, 60'000, 300'000, 600'000, 1'800'000, 3'600'000};
constexpr size_t kMaxValue = 253;  // a DNS name's length
constexpr StatsKey kOtherKey{kOtherPeer, kOtherPeer, 0, 0, -1, 0xff};

void observe(StatsHistogram& histogram, const uint64_t (&bounds)[kStatsBounds], uint64_t value) {
  const auto at = std::lower_bound(std::begin(bounds), std::end(bounds), value);
  histogram.buckets[static_cast<size_t>(at - std::begin(bounds))].add();
  histogram.sum.add(value);
}

uint8_t pack(StatsReporter reporter, StatsProtocol protocol, StatsSecurity security) {
  return static_cast<uint8_t>(static_cast<uint8_t>(reporter) | static_cast<uint8_t>(protocol) << 1 |
                              static_cast<uint8_t>(security) << 3);
}
StatsReporter reporter_of(uint8_t kind) { return static_cast<StatsReporter>(kind & 1); }
StatsProtocol protocol_of(uint8_t kind) { return static_cast<StatsProtocol>(kind >> 1 & 3); }
StatsSecurity security_of(uint8_t kind) { return static_cast<StatsSecurity>(kind >> 3 & 3); }

void label(std::string_view name, std::string_view value, std::string* out) {
  if (!out->empty()) *out += ',';
  out->append(name).append("=\"");
  if (value.empty()) value = "unknown";
  for (const char c : value.substr(0, kMaxValue)) {
    if (c == '\\' || c == '"') *out += '\\';
    if (c == '\n')
      out->append("\\n");
    else
      *out += c;
  }
  *out += '"';
}

void peer_labels(std::string_view side, const StatsPeer& peer, std::string* out) {
  const auto put = [&](std::string_view name, std::string_view value) {
    label(std::string(side).append(name), value, out);
  };
  put("_workload", peer.workload);
  put("_canonical_service", peer.canonical_service);
  put("_canonical_revision", peer.canonical_revision);
  put("_workload_namespace", peer.ns);
  put("_principal", peer.principal);
  put("_app", peer.app);
  put("_version", peer.version);
  put("_cluster", peer.cluster);
  if (!peer.node.empty()) put("_node", peer.node);
}

StatsPeer other_peer() {
  return {"other", "other", "other", "other", "other", "other", "other", "other", ""};
}

void family(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out.append("# HELP ").append(name).append(" ").append(help);
  out.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void number(uint64_t value, std::string* out) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out->append(digits, static_cast<size_t>(end - digits));
}

void line(std::string& out, std::string_view name, std::string_view labels, uint64_t value) {
  out.append(name).append("{").append(labels).append("} ");
  number(value, &out);
  out += '\n';
}

// A histogram summed over workers.
struct Sum {
  std::array<uint64_t, kStatsBounds + 1> buckets{};
  uint64_t sum = 0;
  void add(const StatsHistogram& other) {
    for (size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i].value();
    sum += other.sum.value();
  }
  uint64_t count() const {
    uint64_t total = 0;
    for (const uint64_t n : buckets) total += n;
    return total;
  }
};
struct HttpSum {
  Sum duration, request_bytes, response_bytes;
};
struct TcpSum {
  uint64_t opened = 0, closed = 0, sent = 0, received = 0;
};

void histogram(std::string& out, std::string_view name, std::string_view labels, const Sum& sum,
               double scale) {
  uint64_t total = 0;
  for (size_t i = 0; i <= kStatsBounds; ++i) {
    total += sum.buckets[i];
    out.append(name).append("_bucket{").append(labels).append(",le=\"");
    out.append(i < kStatsBounds ? kBoundTexts[i] : "+Inf").append("\"} ");
    number(total, &out);
    out += '\n';
  }
  fmt::format_to(std::back_inserter(out), "{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels,
                 static_cast<double>(sum.sum) * scale, name, labels, total);
}

}  // namespace

StatsPeer peer_of(const tls::PeerIdentity* identity) {
  StatsPeer peer;
  if (identity == nullptr) return peer;
  peer.principal = identity->common_name;
  for (const std::string& uri : identity->uri_sans) {
    if (!uri.starts_with("spiffe://")) continue;
    peer.principal = uri;
    const size_t at = uri.find("/ns/");
    if (at == std::string::npos) break;
    peer.ns = uri.substr(at + 4, uri.find('/', at + 4) - at - 4);
    break;
  }
  return peer;
}

size_t StatsKeyHash::operator()(const StatsKey& key) const {
  const uint64_t a = uint64_t{key.source} << 32 | key.destination;
  const uint64_t b = uint64_t{key.flags} << 32 | uint32_t{key.code} << 16 |
                     uint32_t{static_cast<uint8_t>(key.grpc)} << 8 | key.kind;
  return mix64(a + 0x9e3779b97f4a7c15ULL * mix64(b));
}

template <class Row>
Row* StatsTable<Row>::find(const StatsKey& key) {
  const size_t mask = index_.size() - 1;
  for (size_t i = StatsKeyHash()(key) & mask; index_[i] != 0; i = (i + 1) & mask) {
    Entry& entry = at(index_[i] - 1);
    if (entry.key == key) return &entry.row;
  }
  return nullptr;
}

template <class Row>
void StatsTable<Row>::put_index(const StatsKey& key, uint32_t value) {
  const size_t mask = index_.size() - 1;
  size_t i = StatsKeyHash()(key) & mask;
  while (index_[i] != 0) i = (i + 1) & mask;
  index_[i] = value;
}

template <class Row>
Row& StatsTable<Row>::insert(const StatsKey& key) {
  const uint32_t number = count_.load(std::memory_order_relaxed);
  if (number % kChunk == 0)
    chunks_[number / kChunk].store(new Entry[kChunk], std::memory_order_release);
  at(number).key = key;
  if ((number + 1) * 2 > index_.size()) {
    index_.assign(index_.size() * 2, 0);
    for (uint32_t i = 0; i < number; ++i) put_index(at(i).key, i + 1);
  }
  put_index(key, number + 1);
  count_.store(number + 1, std::memory_order_release);
  return at(number).row;
}

template <class Row>
Row& WorkerRequestStats::row(StatsTable<Row>& table, const StatsKey& key) {
  if (Row* found = table.find(key)) return *found;
  RequestStats::Sets* sets = &all_.tcp_sets_;
  if constexpr (std::is_same_v<Row, HttpStatsRow>) sets = &all_.http_sets_;
  // Once there are too many, a set that this worker has not met goes to "other", even when another
  // worker counts it: no lock.
  if (!sets->full.load(std::memory_order_relaxed) && all_.admit(*sets, key))
    return table.insert(key);
  overflow_.add();
  if (Row* found = table.find(kOtherKey)) return *found;
  return table.insert(kOtherKey);
}

void WorkerRequestStats::record(const RequestRecord& what) {
  StatsKey key{what.source, what.destination, what.flags, 0, -1,
               pack(what.reporter, what.protocol, what.security)};
  key.code = static_cast<uint16_t>(std::clamp(what.status, 0, 999));
  if (what.grpc_status >= 0) key.grpc = static_cast<int8_t>(what.grpc_status > 16 ? 2 : what.grpc_status);
  HttpStatsRow& to = row(http_, key);
  observe(to.duration, kMicros, static_cast<uint64_t>(std::max<int64_t>(what.duration_us, 0)));
  observe(to.request_bytes, kBytes, what.request_bytes);
  observe(to.response_bytes, kBytes, what.response_bytes);
}

void WorkerRequestStats::record(const TcpRecord& what) {
  const StatsKey key{what.source, what.destination, what.flags, 0, -1,
                     pack(what.reporter, StatsProtocol::kTcp, what.security)};
  TcpStatsRow& to = row(tcp_, key);
  to.opened.add(what.opened);
  to.closed.add(what.closed);
  to.sent.add(what.sent);
  to.received.add(what.received);
}

RequestStats::RequestStats(Options options) : options_(options) {
  // Number 0 and 1 are the same for both ends; append_labels() knows which it is.
  labels_.emplace_back();
  labels_.emplace_back();
  for (size_t i = 0; i < options_.workers; ++i)
    workers_.push_back(std::make_unique<WorkerRequestStats>(*this, options_.max_sets));
}

RequestStats::~RequestStats() = default;

LabelSetId RequestStats::intern_source(const StatsPeer& peer) {
  std::string labels;
  peer_labels("source", peer, &labels);
  return intern(std::move(labels));
}

LabelSetId RequestStats::intern_destination(const StatsPeer& peer, const StatsService& service) {
  std::string labels;
  peer_labels("destination", peer, &labels);
  label("destination_service", service.host, &labels);
  label("destination_service_name", service.name, &labels);
  label("destination_service_namespace", service.ns, &labels);
  return intern(std::move(labels));
}

LabelSetId RequestStats::intern(std::string labels) {
  std::lock_guard lock(mutex_);
  if (const auto it = ids_.find(labels); it != ids_.end()) return it->second;
  if (labels_.size() >= 2 * options_.max_sets + 2) return kOtherPeer;
  labels_.push_back(std::move(labels));
  const auto id = static_cast<LabelSetId>(labels_.size() - 1);
  ids_.emplace(labels_.back(), id);
  return id;
}

bool RequestStats::admit(Sets& sets, const StatsKey& key) {
  std::lock_guard lock(mutex_);
  if (sets.keys.contains(key)) return true;
  if (sets.keys.size() >= options_.max_sets) {
    sets.full = true;
    return false;
  }
  sets.keys.insert(key);
  return true;
}

struct RequestStats::View {
  std::vector<const std::string*> labels;
  std::string unknown[2], other[2];  // source, destination
  // False: the row's labels came after we looked; the next scrape shows it.
  bool has(const StatsKey& key) const {
    return key.source < labels.size() && key.destination < labels.size();
  }
};

void RequestStats::append_labels(const View& view, const StatsKey& key, bool tcp,
                                 std::string* out) const {
  const bool all_other = key == kOtherKey;
  const auto side = [&](LabelSetId id, size_t which) -> std::string_view {
    if (id == kUnknownPeer) return view.unknown[which];
    return id == kOtherPeer ? view.other[which] : *view.labels[id];
  };
  out->clear();
  label("reporter",
        all_other ? "other"
        : reporter_of(key.kind) == StatsReporter::kSource ? "source"
                                                          : "destination",
        out);
  out->append(",").append(side(key.source, 0)).append(",").append(side(key.destination, 1));
  static constexpr std::string_view kProtocols[] = {"http", "grpc", "tcp", "unknown"};
  static constexpr std::string_view kSecurities[] = {"unknown", "none", "mutual_tls", "unknown"};
  label("request_protocol",
        all_other ? "other" : kProtocols[static_cast<size_t>(protocol_of(key.kind))], out);
  if (!tcp) {
    label("response_code", all_other ? std::string("other") : std::to_string(key.code), out);
    if (key.grpc >= 0 || protocol_of(key.kind) == StatsProtocol::kGrpc)
      label("grpc_response_status", key.grpc >= 0 ? std::to_string(key.grpc) : "", out);
    else
      out->append(",grpc_response_status=\"\"");
  }
  std::string flags = key.flags == 0 ? "-" : std::to_string(key.flags);
  if (options_.flags_text != nullptr && key.flags != 0) flags = options_.flags_text(key.flags);
  label("response_flags", all_other ? "other" : flags, out);
  label("connection_security_policy",
        all_other ? "other" : kSecurities[static_cast<size_t>(security_of(key.kind))], out);
}

void RequestStats::append_http(const View& view, std::string& out) const {
  std::unordered_map<StatsKey, HttpSum, StatsKeyHash> sums;
  for (const auto& worker : workers_)
    worker->http_.each([&](const StatsKey& key, const HttpStatsRow& row) {
      if (!view.has(key)) return;
      HttpSum& sum = sums[key];
      sum.duration.add(row.duration);
      sum.request_bytes.add(row.request_bytes);
      sum.response_bytes.add(row.response_bytes);
    });
  std::string labels;
  family(out, "istio_requests_total", "counter", "Requests.");
  for (const auto& [key, sum] : sums) {
    append_labels(view, key, false, &labels);
    line(out, "istio_requests_total", labels, sum.duration.count());
  }
  struct Row {
    std::string_view name, help;
    Sum HttpSum::*sum;
    double scale;
  };
  static constexpr Row kRows[] = {
      {"istio_request_duration_milliseconds", "Time of requests.", &HttpSum::duration, 1e-3},
      {"istio_request_bytes", "Bytes of requests' bodies.", &HttpSum::request_bytes, 1},
      {"istio_response_bytes", "Bytes of answers' bodies.", &HttpSum::response_bytes, 1}};
  for (const Row& row : kRows) {
    family(out, row.name, "histogram", row.help);
    for (const auto& [key, sum] : sums) {
      append_labels(view, key, false, &labels);
      histogram(out, row.name, labels, sum.*row.sum, row.scale);
    }
  }
}

void RequestStats::append_tcp(const View& view, std::string& out) const {
  std::unordered_map<StatsKey, TcpSum, StatsKeyHash> sums;
  for (const auto& worker : workers_)
    worker->tcp_.each([&](const StatsKey& key, const TcpStatsRow& row) {
      if (!view.has(key)) return;
      TcpSum& sum = sums[key];
      sum.opened += row.opened.value();
      sum.closed += row.closed.value();
      sum.sent += row.sent.value();
      sum.received += row.received.value();
    });
  struct Row {
    std::string_view name, help;
    uint64_t TcpSum::*sum;
  };
  static constexpr Row kRows[] = {
      {"istio_tcp_sent_bytes_total", "Bytes sent to clients.", &TcpSum::sent},
      {"istio_tcp_received_bytes_total", "Bytes received from clients.", &TcpSum::received},
      {"istio_tcp_connections_opened_total", "Connections opened.", &TcpSum::opened},
      {"istio_tcp_connections_closed_total", "Connections closed.", &TcpSum::closed}};
  std::string labels;
  for (const Row& row : kRows) {
    family(out, row.name, "counter", row.help);
    for (const auto& [key, sum] : sums) {
      append_labels(view, key, true, &labels);
      line(out, row.name, labels, sum.*row.sum);
    }
  }
}

void RequestStats::append_text(std::string& out) const {
  View view;
  const StatsPeer unknown, other = other_peer();
  peer_labels("source", unknown, &view.unknown[0]);
  peer_labels("source", other, &view.other[0]);
  for (const bool is_other : {false, true}) {
    std::string& to = is_other ? view.other[1] : view.unknown[1];
    peer_labels("destination", is_other ? other : unknown, &to);
    for (const auto name : {"destination_service", "destination_service_name",
                            "destination_service_namespace"})
      label(name, is_other ? "other" : "unknown", &to);
  }
  uint64_t overflow = 0;
  for (const auto& worker : workers_) overflow += worker->overflow_.value();
  {
    // Texts never move: those who intern wait for this only, not for the whole scrape.
    std::lock_guard lock(mutex_);
    for (const auto& text : labels_) view.labels.push_back(&text);
  }
  append_http(view, out);
  append_tcp(view, out);
  family(out, "edgemesh_stats_overflow_total", "counter",
         "Requests and connections counted under \"other\", as there are too many label sets.");
  out += fmt::format("edgemesh_stats_overflow_total {}\n", overflow);
}

}  // namespace edgemesh::proxy
