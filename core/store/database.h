// SQLite behind Result: a connection, prepared statements, transactions.
//
// Durability: with Options::sync_full a transaction that committed survives a power cut; without it
// a power cut may lose the last transactions, but never corrupts the file (WAL). Threads: a
// Database and its statements belong to one thread at a time. For writes from a loop see
// store/writer.h. Errors name the statement and what SQLite said; a full disk is
// kResourceExhausted, a violated constraint kAlreadyExists, a damaged file kIo.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace edgemesh::store {

class Statement {
 public:
  Statement() = default;
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  // Parameters count from 1. Text is copied. A parameter that was not bound is NULL.
  Statement& bind(int index, int64_t value);
  Statement& bind(int index, int value) { return bind(index, static_cast<int64_t>(value)); }
  Statement& bind(int index, std::string_view text);
  Statement& bind(int index, const char* text) { return bind(index, std::string_view(text)); }
  Statement& bind(int index, std::nullptr_t);
  // Text that stays alive and unchanged until the statement is reset: no copy is made.
  Statement& bind_ref(int index, std::string_view text);

  // True: there is a row. After false or an error the statement is reset; bindings stay.
  Result<bool> step();
  // For statements that give no rows: step once, reset, clear the bindings.
  Result<> run();

  // Columns count from 0. The text is valid until the next step() or reset().
  int64_t column_int(int index) const;
  std::string_view column_text(int index) const;
  bool column_is_null(int index) const;

  void reset();  // also clears the bindings
  explicit operator bool() const { return stmt_ != nullptr; }

 private:
  friend class Database;
  Statement(sqlite3* db, sqlite3_stmt* stmt) : db_(db), stmt_(stmt) {}
  sqlite3* db_ = nullptr;
  sqlite3_stmt* stmt_ = nullptr;
};

class Database {
 public:
  struct Options {
    bool sync_full = true;
    bool read_only = false;
    std::chrono::milliseconds busy_timeout{5000};
    int cache_kib = 2048;
  };
  // `path`: a file, made with mode 0600 when missing (its folder must exist), or ":memory:".
  static Result<std::unique_ptr<Database>> open(const std::string& path, const Options& options);
  static Result<std::unique_ptr<Database>> open(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  Result<> exec(std::string_view sql);  // one or several statements, rows are ignored
  Result<Statement> prepare(std::string_view sql);
  // False after SQLite has rolled a transaction back by itself (disk full, I/O error).
  bool in_transaction() const;
  int64_t changes() const;  // rows that the last INSERT, UPDATE or DELETE touched

  // Runs the steps from PRAGMA user_version on, each in its own transaction. A file that is newer
  // than the program is an error.
  Result<> migrate(std::initializer_list<std::string_view> steps);

  const std::string& path() const { return path_; }

 private:
  Database(sqlite3* db, std::string path) : db_(db), path_(std::move(path)) {}
  sqlite3* db_;
  std::string path_;
};

// Begins at construction (BEGIN IMMEDIATE); the destructor rolls back what was not committed.
class Transaction {
 public:
  static Result<Transaction> begin(Database& db);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<> commit();

 private:
  explicit Transaction(Database& db) : db_(&db) {}
  Database* db_;
};

}  // namespace edgemesh::store
