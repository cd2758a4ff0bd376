#include "cloud/api/restamp.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

namespace {

Result<std::string> with_version(std::string_view text, int64_t version) {
  EM_TRY(nlohmann::json object, kube::parse_json(text));
  if (!object.is_object()) return fail(ErrorCode::kInvalidArgument, "not an object");
  object["metadata"]["resourceVersion"] = std::to_string(version);
  return kube::to_text(object);
}

Result<int64_t> newest_version(store::Database& db) {
  EM_TRY(auto query, db.prepare("SELECT max(version) FROM objects"));
  EM_TRY(const bool row, query.step());
  const int64_t objects = row ? query.column_int(0) : 0;
  EM_TRY(auto floor, db.prepare("SELECT CAST(value AS INTEGER) FROM meta WHERE key='floor'"));
  EM_TRY(const bool known, floor.step());
  return std::max(objects, known ? floor.column_int(0) : 0);
}

}  // namespace

Result<uint64_t> restamp_objects(store::Database& db) {
  {
    EM_TRY(auto query, db.prepare("SELECT 1 FROM sqlite_master WHERE name='objects'"));
    EM_TRY(const bool there, query.step());
    if (!there) return uint64_t{0};
  }
  EM_TRY(auto transaction, store::Transaction::begin(db));
  EM_TRY(const int64_t last, newest_version(db));
  const auto jump = static_cast<int64_t>(kRestoreJump);
  EM_TRY_VOID(db.exec("DELETE FROM objects WHERE deleted=1"));
  {
    EM_TRY(auto read, db.prepare("SELECT resource, ns, name, version, body FROM objects"));
    EM_TRY_VOID(db.exec("CREATE TEMP TABLE restamped(resource, ns, name, version, body)"));
    EM_TRY(auto put, db.prepare("INSERT INTO restamped VALUES(?1, ?2, ?3, ?4, ?5)"));
    for (;;) {
      EM_TRY(const bool more, read.step());
      if (!more) break;
      const int64_t version = read.column_int(3) + jump;
      auto body = with_version(read.column_text(4), version);
      if (!body) {
        EM_LOG(kWarn, "restore", "{} {}/{} cannot be read and stays as it is: {}",
               read.column_text(0), read.column_text(1), read.column_text(2), body.error().message);
        continue;
      }
      EM_TRY_VOID(put.bind(1, read.column_text(0))
                      .bind(2, read.column_text(1))
                      .bind(3, read.column_text(2))
                      .bind(4, version)
                      .bind_ref(5, *body)
                      .run());
    }
  }
  EM_TRY_VOID(db.exec("UPDATE objects SET created = created + " + std::to_string(jump)));
  EM_TRY_VOID(
      db.exec("UPDATE objects SET version=r.version, body=r.body FROM restamped r WHERE "
              "objects.resource=r.resource AND objects.ns=r.ns AND objects.name=r.name;"
              "DROP TABLE restamped;"
              "DELETE FROM meta WHERE key='epoch'"));
  const int64_t newest = last + jump;
  EM_TRY(auto floor, db.prepare("INSERT OR REPLACE INTO meta(key, value) VALUES('floor', ?1)"));
  EM_TRY_VOID(floor.bind(1, std::to_string(newest)).run());
  EM_TRY_VOID(transaction.commit());
  return static_cast<uint64_t>(newest);
}

}  // namespace edgemesh::cloud
