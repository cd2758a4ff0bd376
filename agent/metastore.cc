#include "agent/metastore.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "core/base/log.h"

namespace edgemesh::agent {

namespace {

constexpr Duration kLogEvery = std::chrono::minutes(1);
constexpr std::string_view kSchema =
    "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY NOT NULL, type TEXT NOT NULL, "
    "value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS meta_type ON meta(type)";

Result<std::unique_ptr<store::Database>> open_checked(const std::string& path) {
  EM_TRY(auto db, store::Database::open(path));
  {
    EM_TRY(auto check, db->prepare("PRAGMA quick_check(1)"));
    EM_TRY(const bool row, check.step());
    const std::string verdict(row ? check.column_text(0) : "no answer");
    if (verdict != "ok") return fail(ErrorCode::kIo, "{} is damaged: {}", path, verdict);
  }
  EM_TRY_VOID(db->exec(kSchema));
  // A table of that name with other columns is no file of ours.
  EM_TRY(auto probe, db->prepare("SELECT key, type, value FROM meta LIMIT 1"));
  EM_TRY_VOID(probe.step());
  return db;
}

// Of files that were set aside only `newest` stays: a failing disk must not be filled with them.
void drop_older(const std::string& path, const std::string& newest) {
  namespace fs = std::filesystem;
  const std::string prefix = fs::path(path).filename().string() + ".broken-";
  std::error_code error;
  const fs::path folder = fs::absolute(path, error).parent_path();
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(prefix) || name == fs::path(newest).filename().string()) continue;
    std::error_code ignored;
    fs::remove(it->path(), ignored);
  }
}

bool exists(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0;
}

}  // namespace

Metastore::Metastore(io::Loop& loop, const Options& options, obs::Registry& registry)
    : loop_(loop),
      options_(options),
      writes_(registry.counter("edgemesh_metastore_writes_total", "Changes written.")),
      write_failures_(registry.counter("edgemesh_metastore_failures_total",
                                       "Writes that failed and values that were refused.")),
      rows_(registry.gauge("edgemesh_metastore_rows", "Rows.")) {}

Metastore::~Metastore() {
  submit();
}

Result<std::unique_ptr<Metastore>> Metastore::open(io::Loop& loop, const std::string& path,
                                                   obs::Registry& registry) {
  return open(loop, path, registry, Options{});
}

Result<std::unique_ptr<Metastore>> Metastore::open(io::Loop& loop, const std::string& path,
                                                   obs::Registry& registry,
                                                   const Options& options) {
  std::unique_ptr<Metastore> self(new Metastore(loop, options, registry));
  EM_TRY_VOID(self->open_file(path));
  EM_TRY_VOID(self->load_keys());
  return self;
}

Result<> Metastore::open_file(const std::string& path) {
  auto db = open_checked(path);
  if (!db && exists(path) && db.error().code != ErrorCode::kPermissionDenied &&
      db.error().code != ErrorCode::kResourceExhausted &&
      db.error().code != ErrorCode::kUnavailable) {
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(
        loop_.clock().wall_now().time_since_epoch());
    set_aside_ = fmt::format("{}.broken-{}", path, now.count());
    EM_LOG(kError, "metastore",
           "{} is damaged and set aside as {}. A new one is begun: the cloud sends everything "
           "again; until then this node knows no services. The cause: {}",
           path, set_aside_, db.error().message);
    if (std::rename(path.c_str(), set_aside_.c_str()) != 0)
      return fail_errno(fmt::format("rename {} to {}", path, set_aside_), errno);
    for (const char* suffix : {"-wal", "-shm"})
      static_cast<void>(std::remove((path + suffix).c_str()));
    drop_older(path, set_aside_);
    db = open_checked(path);
  }
  if (!db) return fail(db.error().with_context(path));
  store::Database::Options reading;
  reading.read_only = true;
  reading.cache_kib = 256;
  auto reader = store::Database::open(path, reading);
  if (!reader) return fail(reader.error().with_context(path));
  reader_ = std::move(*reader);
  EM_TRY(writer_, store::Writer::start(loop_, std::move(*db)));
  return {};
}

uint8_t Metastore::type_id(std::string_view type) {
  const auto it = std::find(type_names_.begin(), type_names_.end(), type);
  if (it != type_names_.end()) return static_cast<uint8_t>(it - type_names_.begin());
  type_names_.emplace_back(type);
  type_counts_.push_back(0);
  return static_cast<uint8_t>(type_names_.size() - 1);
}

void Metastore::note_row(const std::string& key, std::string_view type, size_t value_bytes) {
  const uint8_t id = type_id(type);
  const auto [it, is_new] = types_.try_emplace(key);
  if (is_new) {
    bytes_ += key.size();
  } else {
    --type_counts_[it->second.type];
    bytes_ -= it->second.bytes;
  }
  it->second = {id, static_cast<uint32_t>(value_bytes)};
  bytes_ += value_bytes;
  ++type_counts_[id];
}

size_t Metastore::count(std::string_view type) const {
  const auto it = std::find(type_names_.begin(), type_names_.end(), type);
  return it == type_names_.end() ? 0 : type_counts_[static_cast<size_t>(it - type_names_.begin())];
}

Result<> Metastore::load_keys() {
  EM_TRY(auto rows, reader_->prepare("SELECT key, type, length(CAST(value AS BLOB)) FROM meta"));
  for (;;) {
    EM_TRY(const bool more, rows.step());
    if (!more) break;
    // A file of another program could have any number of types.
    if (type_names_.size() >= 200) break;
    note_row(std::string(rows.column_text(0)), rows.column_text(1),
             static_cast<size_t>(rows.column_int(2)));
  }
  rows_.set(static_cast<int64_t>(types_.size()));
  return {};
}

Result<> Metastore::for_each(
    std::string_view type,
    const std::function<void(const std::string& key, std::string_view value)>& fn) {
  EM_TRY(auto rows, reader_->prepare("SELECT key, value FROM meta WHERE type = ? ORDER BY key"));
  rows.bind(1, type);
  for (;;) {
    EM_TRY(const bool more, rows.step());
    if (!more) return {};
    fn(std::string(rows.column_text(0)), rows.column_text(1));
  }
}

Result<std::string> Metastore::get(std::string_view key) {
  EM_TRY(auto row, reader_->prepare("SELECT value FROM meta WHERE key = ?"));
  row.bind(1, key);
  EM_TRY(const bool found, row.step());
  return found ? std::string(row.column_text(0)) : std::string();
}

std::vector<std::string> Metastore::keys(std::string_view type) const {
  std::vector<std::string> out;
  const auto it = std::find(type_names_.begin(), type_names_.end(), type);
  if (it == type_names_.end()) return out;
  const auto id = static_cast<uint8_t>(it - type_names_.begin());
  for (const auto& [key, row] : types_) {
    if (row.type == id) out.push_back(key);
  }
  return out;
}

void Metastore::refuse(std::string_view key, std::string_view why) {
  write_failures_.add();
  if (last_logged_ != TimePoint{} && loop_.now() - last_logged_ < kLogEvery) return;
  last_logged_ = loop_.now();
  EM_LOG(kError, "metastore", "{} is not stored: {}", key.substr(0, 200), why);
}

bool Metastore::put(std::string_view key, std::string_view type, std::string value) {
  if (value.size() > options_.max_value_bytes) {
    refuse(key,
           fmt::format("{} bytes, at most {} are taken", value.size(), options_.max_value_bytes));
    return false;
  }
  if (pending_bytes_ + value.size() > options_.max_pending_bytes) {
    refuse(key, "the disk does not keep up");
    return false;
  }
  std::string name(key);
  if (types_.size() >= options_.max_keys && !types_.contains(name)) {
    refuse(key, fmt::format("there are {} rows already", types_.size()));
    return false;
  }
  const auto known = types_.find(name);
  const size_t before = known == types_.end() ? 0 : known->first.size() + known->second.bytes;
  if (bytes_ - before + name.size() + value.size() > options_.max_bytes) {
    refuse(key, fmt::format("there are {} bytes already", bytes_));
    return false;
  }
  note_row(name, type, value.size());
  add({std::move(name), std::string(type), std::move(value)});
  return true;
}

void Metastore::remove(std::string_view key) {
  std::string name(key);
  const auto it = types_.find(name);
  if (it == types_.end()) return;
  --type_counts_[it->second.type];
  bytes_ -= it->first.size() + it->second.bytes;
  std::string type = type_names_[it->second.type];
  types_.erase(it);
  add({std::move(name), std::move(type), "", true});
}

void Metastore::add(Change change) {
  pending_bytes_ += change.key.size() + change.value.size();
  pending_.push_back(std::move(change));
  rows_.set(static_cast<int64_t>(types_.size()));
  if (std::exchange(submit_waits_, true)) return;
  loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.lock()) submit();
  });
}

void Metastore::submit() {
  submit_waits_ = true;  // what the hook puts needs no turn of its own
  if (before_write_ && !pending_.empty()) before_write_();
  submit_waits_ = false;
  if (pending_.empty() || writer_ == nullptr) return;
  size_t bytes = 0;
  for (const Change& change : pending_) bytes += change.key.size() + change.value.size();
  writes_.add(pending_.size());
  auto shared = std::make_shared<const std::vector<Change>>(std::exchange(pending_, {}));
  auto write = [shared](store::Database& db, bool lost) -> Result<> {
    if (lost) {
      EM_TRY(auto drop, db.prepare("DELETE FROM meta WHERE type = ?"));
      EM_TRY_VOID(drop.bind(1, kPositionType).run());
    }
    EM_TRY(auto put, db.prepare("INSERT OR REPLACE INTO meta(key, type, value) VALUES(?, ?, ?)"));
    EM_TRY(auto remove, db.prepare("DELETE FROM meta WHERE key = ?"));
    for (const Change& change : *shared) {
      if (lost && change.type == kPositionType) continue;
      if (change.removal)
        EM_TRY_VOID(remove.bind_ref(1, change.key).run());
      else
        EM_TRY_VOID(
            put.bind_ref(1, change.key).bind_ref(2, change.type).bind_ref(3, change.value).run());
    }
    return {};
  };
  // A position that was put before this thread has heard of the failure must not be written either:
  // the writer's thread knows it first.
  bool drop = std::exchange(drop_position_, false);
  auto work = [write = std::move(write), drop, generation = generation_,
               failed = failed_generation_](store::Database& db) -> Result<> {
    auto done = write(db, drop || *failed == generation);
    if (!done) *failed = generation;
    return done;
  };
  writer_->submit(std::move(work),
                  [this, bytes, shared, alive = std::weak_ptr<bool>(alive_)](Result<> result) {
                    if (alive.lock()) on_written(bytes, *shared, std::move(result));
                  });
}

void Metastore::on_written(size_t bytes, const std::vector<Change>& changes, Result<> result) {
  pending_bytes_ -= std::min(pending_bytes_, bytes);
  if (result) {
    for (const Change& change : changes) {
      if (!observer_) return;
      observer_(change.key, change.type, change.removal ? nullptr : &change.value);
    }
    return;
  }
  // The objects of this write are missing on disk: a position there would hide that for ever.
  drop_position_ = true;
  ++generation_;
  refuse("a change", result.error().message);
  if (on_lost_) on_lost_();
}

void Metastore::flush(UniqueFunction<void(Result<>)> done) {
  submit();
  writer_->submit([](store::Database&) -> Result<> { return {}; }, std::move(done));
}

}  // namespace edgemesh::agent
