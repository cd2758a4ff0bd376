#include "cloud/revocations.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>

#include "cloud/ca.h"
#include "cloud/files.h"
#include "cloud/node_claims.h"
#include "cloud/node_controller.h"
#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFile = 64 << 20;
// Joins come in crowds; what they change is written together. A revocation is written at once.
constexpr Duration kSaveDelay = std::chrono::seconds(1);
constexpr Duration kTellDelay = std::chrono::milliseconds(50);
constexpr Duration kClean = std::chrono::hours(1);
constexpr Duration kAskAgain = std::chrono::seconds(1);
constexpr int64_t kReplaceMargin = 60;  // seconds; much less than kBackdateSeconds

int64_t whole(const Json& object, const char* key) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

// From when on the certificates of a Node count: 0 when it does not say, -1 when it has had none.
int64_t counts_from(const Json& object) {
  const Json* text = kube::find(object, "metadata", "annotations", kCertificateAnnotation);
  if (text != nullptr && text->is_string()) {
    return std::max<int64_t>(whole(Json::parse(text->get_ref<const std::string&>(), nullptr, false), "notBefore"), 0);
  }
  return kube::find(object, "metadata", "annotations", kMeshAnnotation) != nullptr ? 0 : -1;
}

}  // namespace

struct Revocations::File {
  explicit File(std::string at) : path(std::move(at)) {}
  Result<> write(uint64_t state, const std::string& content) {
    const std::lock_guard lock(mutex);
    if (state < written) return {};
    written = state;
    return write_file(path, content, 0600);
  }
  const std::string path;
  std::mutex mutex;
  uint64_t written = 0;
};

Revocations::Revocations(io::Loop& loop, kube::Client& client, RevocationOptions options,
                         obs::Registry& registry)
    : loop_(loop),
      client_(client),
      options_(std::move(options)),
      file_(std::make_shared<File>(options_.path)),
      save_timer_(loop, [this] { save(); }),
      tell_timer_(loop,
                  [this] {
                    if (on_change_) on_change_();
                  }),
      clean_timer_(loop, [this] { drop_old(); }),
      ask_timer_(loop, [this] { ask_cluster(); }),
      entries_(registry.gauge("edgemesh_revoked_nodes", "Nodes with certificates that were revoked.")) {
  kube::Informer::Options watch;
  watch.type = kube::kNodes;
  watch.keep_json = false;
  kube::Informer::Handlers handlers;
  handlers.on_upsert = [this](const kube::Informer::Object& object) { on_node(object); };
  handlers.on_delete = [this](const kube::Informer::Object& object) { on_deleted(object.name); };
  handlers.on_synced = [this] { on_synced(); };
  handlers.on_error = [](const Error& error) {
    EM_LOG(kWarn, "ca", "watch of nodes: {}; trying again", error.message);
  };
  nodes_ = std::make_unique<kube::Informer>(loop, client, std::move(watch), std::move(handlers));
}

Revocations::~Revocations() {
  *alive_ = false;
  if (!save_timer_.active() && !saving_) return;
  if (auto ok = file_->write(++state_, text()); !ok)
    EM_LOG(kError, "ca", "revoked certificates are not on disk: {}", ok.error().message);
}

Result<std::unique_ptr<Revocations>> Revocations::open(io::Loop& loop, kube::Client& client,
                                                       RevocationOptions options, obs::Registry& registry) {
  std::unique_ptr<Revocations> self(new Revocations(loop, client, std::move(options), registry));
  if (auto ok = self->load(); !ok) return fail(ok.error().with_context(self->options_.path));
  return self;
}

void Revocations::start() {
  ask_cluster();
  drop_old();
  clean_timer_.start_repeating(kClean);
}

void Revocations::ask_cluster() {
  client_.get(kube::kNamespaces, "", "kube-system", [this, alive = alive_](Result<std::string> object) {
    if (*alive) on_cluster(object);
  });
}

void Revocations::on_cluster(const Result<std::string>& object) {
  std::string uid;
  if (object) uid = kube::text_at(Json::parse(*object, nullptr, false), "metadata", "uid");
  const bool tells_nothing = !object && (object.error().code == ErrorCode::kNotFound ||
                                         object.error().code == ErrorCode::kPermissionDenied);
  if (!object && !tells_nothing) return ask_timer_.start(kAskAgain);
  if (!uid.empty() && uid != cluster_) {
    if (!cluster_.empty()) {
      EM_LOG(kWarn, "ca", "another Kubernetes API than before: nodes that it does not have are not taken for deleted");
      known_.clear();
    }
    cluster_ = uid;
    save();
  }
  nodes_->start();
}

int64_t Revocations::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(loop_.clock().wall_now().time_since_epoch()).count();
}

Result<> Revocations::load() {
  const auto text = read_file(options_.path, kMaxFile);
  if (!text) return text.error().code == ErrorCode::kNotFound ? Result<>() : fail(text.error());
  const Json json = Json::parse(*text, nullptr, false);
  const Json* known = kube::find(json, "known");
  const Json* revoked = kube::find(json, "revoked");
  if (known == nullptr || !known->is_object() || revoked == nullptr || !revoked->is_object()) {
    return fail(ErrorCode::kInvalidArgument, "not a list of revoked certificates: put back a good copy");
  }
  cluster_ = kube::text_at(json, "cluster");
  for (const auto& [node, from] : known->items()) {
    if (from.is_number_integer()) known_[node] = from.get<int64_t>();
  }
  for (const auto& [node, entry] : revoked->items()) {
    revoked_[node] = {.before = whole(entry, "before"), .until = whole(entry, "until")};
  }
  entries_.set(static_cast<int64_t>(revoked_.size()));
  return {};
}

std::string Revocations::text() const {
  std::string out = fmt::format(R"({{"cluster":{},"known":{{)", kube::to_text(Json(cluster_)));
  const size_t start = out.size();
  for (const auto& [node, from] : known_)
    fmt::format_to(std::back_inserter(out), "{}{}:{}", out.size() == start ? "" : ",",
                   kube::to_text(Json(node)), from);
  out += R"(},"revoked":{)";
  const size_t second = out.size();
  for (const auto& [node, entry] : revoked_)
    fmt::format_to(std::back_inserter(out), R"({}{}:{{"before":{},"until":{}}})",
                   out.size() == second ? "" : ",", kube::to_text(Json(node)), entry.before, entry.until);
  return out + "}}";
}

void Revocations::save() {
  save_timer_.stop();
  if (saving_) {
    save_again_ = true;
    return;
  }
  saving_ = true;
  auto done = std::make_shared<Result<>>();
  loop_.offload(
      [file = file_, state = ++state_, content = text(), done] { *done = file->write(state, content); },
      [this, alive = alive_, done] {
        if (*alive) on_saved(*done);
      });
}

void Revocations::on_saved(const Result<>& done) {
  saving_ = false;
  if (!done) {
    EM_LOG(kError, "ca", "revoked certificates are not on disk: {}", done.error().message);
    save_timer_.start(kSaveDelay);
  }
  if (std::exchange(save_again_, false)) save();
}

void Revocations::changed() {
  entries_.set(static_cast<int64_t>(revoked_.size()));
  save();
  if (!tell_timer_.active()) tell_timer_.start(kTellDelay);
}

void Revocations::on_node(const kube::Informer::Object& object) {
  // Nodes may write on their own objects: what lies in the future is none of ours.
  const int64_t from = std::min(counts_from(Json::parse(object.json, nullptr, false)), now());
  if (from < 0) return;
  const auto [at, is_new] = known_.try_emplace(object.name, from);
  const auto entry = revoked_.find(object.name);
  if (is_new && entry != revoked_.end() && from > 0 && from < entry->second.before) {
    // It joined again before we heard of the deletion.
    entry->second.before = from;
    changed();
  }
  if (is_new || from > at->second) {
    if (!is_new) {
      EM_LOG(kInfo, "ca", "node {} was replaced: its earlier certificates count no more", object.name);
      revoke(object.name, from);
    }
    at->second = from;
    if (!save_timer_.active()) save_timer_.start(kSaveDelay);
  }
}

void Revocations::on_deleted(const std::string& node) {
  const auto it = known_.find(node);
  if (it == known_.end()) return;
  EM_LOG(kInfo, "ca", "node {} was deleted: its certificates count no more", node);
  // All that were issued up to this second. Those of a name that was given away at once begin later.
  const int64_t before = std::max(now() - kBackdateSeconds, it->second) + 1;
  known_.erase(it);
  revoke(node, before);
}

// Who was deleted while nobody looked.
void Revocations::on_synced() {
  synced_ = true;
  std::vector<std::string> gone;
  for (const auto& [node, from] : known_) {
    if (nodes_->find("", node) == nullptr) gone.push_back(node);
  }
  for (const std::string& node : gone) on_deleted(node);
}

void Revocations::revoke(const std::string& node, int64_t before) {
  Entry& entry = revoked_[node];
  entry.before = std::max(entry.before, before);
  entry.until = now() + options_.lifetime.count();
  if (revoked_.size() > options_.max_entries) {
    const auto first = std::min_element(revoked_.begin(), revoked_.end(), [](const auto& a, const auto& b) {
      return a.second.until < b.second.until;
    });
    EM_LOG(kError, "ca", "more than {} nodes with revoked certificates: those of {} are forgotten",
           options_.max_entries, first->first);
    revoked_.erase(first);
  }
  changed();
}

void Revocations::drop_old() {
  const int64_t limit = now() - options_.renew_grace.count();
  if (std::erase_if(revoked_, [&](const auto& item) { return item.second.until < limit; }) > 0) changed();
}

Result<> Revocations::check(const std::string& node, int64_t not_before) const {
  const auto it = revoked_.find(node);
  if (it == revoked_.end() || not_before >= it->second.before) return {};
  return fail(ErrorCode::kPermissionDenied,
              "the certificate of node '{}' was revoked: the node was deleted or replaced; join again with a token",
              node);
}

int64_t Revocations::not_before_floor(const std::string& node, bool replaces) const {
  const auto entry = revoked_.find(node);
  int64_t floor = entry == revoked_.end() ? 0 : entry->second.before;
  if (!replaces) return floor;
  if (const auto it = known_.find(node); it != known_.end()) floor = std::max(floor, it->second + 1);
  // The old holder may renew until we hear that the name is another's: what it gets begins before.
  return std::max(floor, now() - kBackdateSeconds + kReplaceMargin);
}

bool Revocations::may_create(const std::string& node, int64_t not_before) const {
  return synced_ && !known_.contains(node) && check(node, not_before).has_value();
}

std::vector<RevokedNode> Revocations::list() const {
  std::vector<RevokedNode> out;
  const int64_t time = now();
  for (const auto& [node, entry] : revoked_) {
    if (entry.until > time) out.push_back({.node = node, .before = entry.before});
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.node < b.node; });
  return out;
}

}  // namespace edgemesh::cloud
