#include "core/store/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace edgemesh::store {

namespace {

ErrorCode code_of(int rc) {
  switch (rc & 0xff) {
    case SQLITE_CONSTRAINT: return ErrorCode::kAlreadyExists;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG: return ErrorCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kUnavailable;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH: return ErrorCode::kPermissionDenied;
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
    case SQLITE_RANGE: return ErrorCode::kInternal;
    default: return ErrorCode::kIo;
  }
}

tl::unexpected<Error> db_error(sqlite3* db, int rc, std::string_view what) {
  constexpr size_t kMaxShown = 120;
  return fail(code_of(rc), "database: {} ({}): {}",
              db != nullptr ? sqlite3_errmsg(db) : "no memory", sqlite3_errstr(rc),
              what.substr(0, kMaxShown));
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_), stmt_(std::exchange(other.stmt_, nullptr)) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  if (this != &other) {
    sqlite3_finalize(stmt_);
    db_ = other.db_;
    stmt_ = std::exchange(other.stmt_, nullptr);
  }
  return *this;
}

Statement::~Statement() {
  sqlite3_finalize(stmt_);
}

Statement& Statement::bind(int index, int64_t value) {
  sqlite3_bind_int64(stmt_, index, value);
  return *this;
}

Statement& Statement::bind(int index, std::string_view text) {
  // An empty view may have a null pointer, which SQLite would take for NULL.
  const char* data = text.data() != nullptr ? text.data() : "";
  sqlite3_bind_text64(stmt_, index, data, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

Statement& Statement::bind_ref(int index, std::string_view text) {
  const char* data = text.data() != nullptr ? text.data() : "";
  sqlite3_bind_text64(stmt_, index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

Statement& Statement::bind(int index, std::nullptr_t) {
  sqlite3_bind_null(stmt_, index);
  return *this;
}

Result<bool> Statement::step() {
  int rc = sqlite3_step(stmt_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) {
    sqlite3_reset(stmt_);
    return false;
  }
  auto error = db_error(db_, rc, sqlite3_sql(stmt_));
  sqlite3_reset(stmt_);
  return error;
}

Result<> Statement::run() {
  auto stepped = step();
  reset();
  if (!stepped) return fail(std::move(stepped).error());
  return {};
}

int64_t Statement::column_int(int index) const {
  return sqlite3_column_int64(stmt_, index);
}

std::string_view Statement::column_text(int index) const {
  const unsigned char* text = sqlite3_column_text(stmt_, index);
  if (text == nullptr) return {};
  return {reinterpret_cast<const char*>(text),  // NOLINT
          static_cast<size_t>(sqlite3_column_bytes(stmt_, index))};
}

bool Statement::column_is_null(int index) const {
  return sqlite3_column_type(stmt_, index) == SQLITE_NULL;
}

void Statement::reset() {
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  return open(path, Options());
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path, const Options& options) {
  const bool in_memory = path == ":memory:";
  if (!in_memory && !options.read_only) {
    // Made here and not by SQLite, so that secrets in it are never readable by others.
    int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail_errno(fmt::format("open database {}", path), errno);
    ::close(fd);
  }
  sqlite3* raw = nullptr;
  int flags =
      SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
      (options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  int rc = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  if (rc != SQLITE_OK) {
    auto error = db_error(raw, rc, path);
    sqlite3_close_v2(raw);
    return error;
  }
  std::unique_ptr<Database> db(new Database(raw, path));
  sqlite3_busy_timeout(raw, static_cast<int>(options.busy_timeout.count()));
  auto pragmas = fmt::format(
      "PRAGMA journal_mode=WAL; PRAGMA synchronous={}; PRAGMA foreign_keys=ON; "
      "PRAGMA cache_size=-{}; PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=67108864;",
      options.sync_full ? "FULL" : "NORMAL", options.cache_kib);
  if (options.read_only) pragmas = fmt::format("PRAGMA cache_size=-{};", options.cache_kib);
  if (auto done = db->exec(pragmas); !done) {
    return fail(done.error().with_context(path));
  }
  return db;
}

Database::~Database() {
  sqlite3_close_v2(db_);
}

Result<> Database::exec(std::string_view sql) {
  std::string text(sql);
  int rc = sqlite3_exec(db_, text.c_str(), nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return db_error(db_, rc, sql);
  return {};
}

bool Database::in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* stmt = nullptr;
  int rc = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                              SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
  if (rc != SQLITE_OK) return db_error(db_, rc, sql);
  return Statement(db_, stmt);
}

int64_t Database::changes() const {
  return sqlite3_changes64(db_);
}

Result<> Database::migrate(std::initializer_list<std::string_view> steps) {
  EM_TRY(auto query, prepare("PRAGMA user_version"));
  EM_TRY(bool row, query.step());
  int64_t version = row ? query.column_int(0) : 0;
  query.reset();
  if (version > static_cast<int64_t>(steps.size())) {
    return fail(ErrorCode::kInvalidArgument,
                "{} was written by a newer release (schema {}, this program knows {}): upgrade "
                "EdgeMesh or move the file away",
                path_, version, steps.size());
  }
  for (size_t i = static_cast<size_t>(version); i < steps.size(); ++i) {
    EM_TRY(auto transaction, Transaction::begin(*this));
    EM_TRY_VOID(exec(*(steps.begin() + i)));
    EM_TRY_VOID(exec(fmt::format("PRAGMA user_version={}", i + 1)));
    EM_TRY_VOID(transaction.commit());
  }
  return {};
}

Result<Transaction> Transaction::begin(Database& db) {
  EM_TRY_VOID(db.exec("BEGIN IMMEDIATE"));
  return Transaction(db);
}

Transaction::Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}

Transaction::~Transaction() {
  // Nothing can be done about a failing rollback; SQLite has then rolled back by itself.
  if (db_ != nullptr) static_cast<void>(db_->exec("ROLLBACK"));
}

Result<> Transaction::commit() {
  EM_TRY_VOID(db_->exec("COMMIT"));
  db_ = nullptr;
  return {};
}

}  // namespace edgemesh::store
