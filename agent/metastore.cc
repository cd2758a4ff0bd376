#include "agent/metastore.h"

#include <chrono>
#include <cstdio>

#include "core/base/log.h"

namespace edgemesh::agent {

namespace {

Result<std::unique_ptr<store::Database>> open_database(const std::string& path,
                                                       std::vector<Metastore::Row>& rows) {
  EM_TRY(auto db, store::Database::open(path));
  EM_TRY_VOID(db->exec("CREATE TABLE IF NOT EXISTS meta (key TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, "
                       "value TEXT NOT NULL)"));
  EM_TRY(auto query, db->prepare("SELECT key, type, value FROM meta"));
  rows.clear();
  for (;;) {
    EM_TRY(bool more, query.step());
    if (!more) break;
    rows.push_back({std::string(query.column_text(0)), std::string(query.column_text(1)),
                    std::string(query.column_text(2))});
  }
  return db;
}

}  // namespace

Result<std::unique_ptr<Metastore>> Metastore::open(io::Loop& loop, const std::string& path) {
  std::unique_ptr<Metastore> out(new Metastore);
  auto db = open_database(path, out->loaded_);
  if (!db && db.error().code == ErrorCode::kIo) {
    auto now = std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count();
    std::string aside = fmt::format("{}.broken-{}", path, now);
    EM_LOG(kError, "metastore", "{}; the file is set aside as {} and filled anew by the cloud",
           db.error().message, aside);
    std::rename(path.c_str(), aside.c_str());
    std::remove((path + "-wal").c_str());
    std::remove((path + "-shm").c_str());
    db = open_database(path, out->loaded_);
  }
  if (!db) return fail(db.error());
  EM_TRY(out->writer_, store::Writer::start(loop, std::move(*db)));
  return out;
}

void Metastore::submit(store::Writer::Work work) {
  writer_->submit(std::move(work), [](Result<> result) {
    if (!result) EM_LOG(kError, "metastore", "not written: {}", result.error().message);
  });
}

void Metastore::put(std::string key, std::string type, std::string value) {
  submit([key = std::move(key), type = std::move(type),
          value = std::move(value)](store::Database& db) -> Result<> {
    EM_TRY(auto statement, db.prepare("INSERT OR REPLACE INTO meta (key, type, value) VALUES (?, ?, ?)"));
    statement.bind(1, key).bind(2, type).bind(3, value);
    return statement.run();
  });
}

void Metastore::remove(std::string key) {
  submit([key = std::move(key)](store::Database& db) -> Result<> {
    EM_TRY(auto statement, db.prepare("DELETE FROM meta WHERE key = ?"));
    statement.bind(1, key);
    return statement.run();
  });
}

void Metastore::flush(io::Task done) {
  writer_->submit([](store::Database&) -> Result<> { return {}; },
                  [done = std::make_shared<io::Task>(std::move(done))](Result<>) { (*done)(); });
}

}  // namespace edgemesh::agent
