#include "cloud/backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "cloud/api/restamp.h"
#include "cloud/files.h"
#include "core/io/fd.h"
#include "core/store/database.h"

namespace edgemesh::cloud {

namespace {

namespace fs = std::filesystem;

constexpr const char* kStore = "api.db";
constexpr const char* kLock = "lock";
constexpr const char* kAside = "before-restore-";
constexpr size_t kMaxFile = 16 << 20;
constexpr size_t kMaxFiles = 1000;

// What a start makes anew, and what belongs to one process.
bool left_out(const std::string& name) {
  return name == kLock || name == "mesh-log" || name == "join-token" ||
         name == "admin.kubeconfig" || name.starts_with(kStore) || name.starts_with(kAside) ||
         name.ends_with(".new") || name.ends_with(".lock");
}

// "ca/ca.key": at most two steps, each a plain name.
bool good_path(std::string_view path) {
  size_t steps = 0;
  while (true) {
    const std::string_view step = path.substr(0, path.find('/'));
    const bool plain = std::all_of(step.begin(), step.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
    });
    if (step.empty() || step.front() == '.' || !plain || ++steps > 2) return false;
    if (step.size() == path.size()) return !left_out(std::string(step));
    path.remove_prefix(step.size() + 1);
  }
}

Result<std::vector<std::string>> state_files(const std::string& state_dir) {
  std::vector<std::string> out;
  std::error_code error;
  fs::recursive_directory_iterator it(state_dir, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string path = it->path().lexically_relative(state_dir).string();
    if (it->is_directory()) {
      if (it.depth() > 0 || left_out(path)) it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file() || left_out(it->path().filename().string()) || !good_path(path))
      continue;
    if (out.size() >= kMaxFiles)
      return fail(ErrorCode::kResourceExhausted, "{} holds too many files for a state directory",
                  state_dir);
    out.push_back(path);
  }
  if (error) return fail(ErrorCode::kIo, "{}: {}", state_dir, error.message());
  std::sort(out.begin(), out.end());
  return out;
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? "''" : std::string(1, c);
  return out + "'";
}

Result<> sync_file(const std::string& path, int flags) {
  io::Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return fail_errno("sync " + path, errno);
  return {};
}

// The new name of a file, also after a power cut.
Result<> move_into_place(const std::string& from, const std::string& to) {
  EM_TRY_VOID(sync_file(from, O_RDONLY));
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno("rename to " + to, errno);
  const std::string folder = fs::absolute(to).parent_path().string();
  return sync_file(folder, O_RDONLY | O_DIRECTORY);
}

Result<> check_whole(store::Database& db) {
  EM_TRY(auto check, db.prepare("PRAGMA quick_check(1)"));
  EM_TRY(const bool row, check.step());
  if (row && check.column_text(0) == "ok") return {};
  return fail(ErrorCode::kIo, "{} is damaged: {}", db.path(),
              row ? check.column_text(0) : "no answer");
}

Result<size_t> count_objects(store::Database& db) {
  EM_TRY(auto there, db.prepare("SELECT 1 FROM sqlite_master WHERE name='objects'"));
  EM_TRY(const bool has, there.step());
  if (!has) return size_t{0};
  EM_TRY(auto count, db.prepare("SELECT count(*) FROM objects WHERE deleted=0"));
  EM_TRY_VOID(count.step());
  return static_cast<size_t>(count.column_int(0));
}

Result<BackupReport> fill(const std::string& state_dir, const std::string& path,
                          std::chrono::system_clock::time_point now) {
  BackupReport out;
  EM_TRY(auto db, store::Database::open(path));
  EM_TRY_VOID(check_whole(*db));
  EM_TRY_VOID(
      db->exec("CREATE TABLE edgemesh_backup(path TEXT PRIMARY KEY, mode INTEGER NOT NULL, "
               "data TEXT NOT NULL, made INTEGER NOT NULL)"));
  EM_TRY(const auto files, state_files(state_dir));
  EM_TRY(auto put, db->prepare("INSERT INTO edgemesh_backup VALUES(?1, ?2, ?3, ?4)"));
  const auto made =
      std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  for (const std::string& file : files) {
    const std::string full = state_dir + "/" + file;
    struct stat st {};
    if (::stat(full.c_str(), &st) != 0) return fail_errno("look at " + full, errno);
    EM_TRY(const std::string data, read_file(full, kMaxFile));
    EM_TRY_VOID(put.bind(1, file)
                    .bind(2, static_cast<int64_t>(st.st_mode & 0777))
                    .bind_ref(3, data)
                    .bind(4, static_cast<int64_t>(made))
                    .run());
  }
  out.files = files.size();
  EM_TRY(out.objects, count_objects(*db));
  // One file, without a log beside it.
  EM_TRY_VOID(db->exec("PRAGMA journal_mode=DELETE"));
  return out;
}

Result<> copy_store(const std::string& from, const std::string& to) {
  static_cast<void>(::unlink(to.c_str()));
  io::Fd fd(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return fail_errno("write " + to, errno);
  if (!fs::exists(from)) return {};  // a cloud on a real kube-apiserver
  store::Database::Options reading;
  reading.read_only = true;
  EM_TRY(auto db, store::Database::open(from, reading));
  return db->exec("VACUUM INTO " + quoted(to));
}

Result<> copy_file(const std::string& from, const std::string& to) {
  static_cast<void>(::unlink(to.c_str()));
  io::Fd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in.valid()) return fail_errno("read " + from, errno);
  io::Fd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!out.valid()) return fail_errno("write " + to, errno);
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t n = ::read(in.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read " + from, errno);
    if (n == 0) break;
    for (ssize_t done = 0; done < n;) {
      const ssize_t w = ::write(out.get(), buffer.data() + done, static_cast<size_t>(n - done));
      if (w < 0 && errno == EINTR) continue;
      if (w < 0) return fail_errno("write " + to, errno);
      done += w;
    }
  }
  return {};
}

// Moves what is there into a folder of its own; empty: there was nothing.
Result<std::string> set_aside(const std::string& state_dir, bool replace,
                              std::chrono::system_clock::time_point now, const char* keep) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(state_dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name != kLock && name != keep && !name.starts_with(kAside)) names.push_back(name);
  }
  if (error) return fail(ErrorCode::kIo, "{}: {}", state_dir, error.message());
  if (names.empty()) return std::string();
  if (!replace) {
    return fail(ErrorCode::kAlreadyExists,
                "{} has a state already; choose another --state-dir, or say --replace to put that "
                "state aside",
                state_dir);
  }
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  const std::string aside = fmt::format("{}/{}{}", state_dir, kAside, seconds);
  EM_TRY_VOID(make_dirs(aside));
  for (const std::string& name : names) {
    const std::string from = state_dir + "/" + name;
    if (::rename(from.c_str(), (aside + "/" + name).c_str()) != 0)
      return fail_errno("set aside " + from, errno);
  }
  return aside;
}

struct SavedFile {
  std::string path, data;
  mode_t mode = 0600;
};

Result<std::vector<SavedFile>> saved_files(store::Database& db) {
  std::vector<SavedFile> out;
  EM_TRY(auto there, db.prepare("SELECT 1 FROM sqlite_master WHERE name='edgemesh_backup'"));
  EM_TRY(const bool has, there.step());
  if (!has) return fail(ErrorCode::kInvalidArgument, "it is no backup of edgemesh-cloud");
  EM_TRY(auto read, db.prepare("SELECT path, mode, data FROM edgemesh_backup"));
  for (;;) {
    EM_TRY(const bool more, read.step());
    if (!more) return out;
    SavedFile file{std::string(read.column_text(0)), std::string(read.column_text(2)),
                   static_cast<mode_t>(read.column_int(1) & 0777)};
    if (!good_path(file.path) || out.size() >= kMaxFiles)
      return fail(ErrorCode::kInvalidArgument, "'{}' is no file of a state directory",
                  file.path.substr(0, 100));
    out.push_back(std::move(file));
  }
}

}  // namespace

Result<BackupReport> make_backup(const std::string& state_dir, const std::string& to,
                                 std::chrono::system_clock::time_point now) {
  if (!fs::exists(state_dir))
    return fail(ErrorCode::kNotFound, "{} does not exist: name the cloud's --state-dir", state_dir);
  if (fs::exists(to))
    return fail(ErrorCode::kAlreadyExists, "{} exists already, and is not overwritten", to);
  const std::string part = to + ".part";
  auto copied = copy_store(state_dir + "/" + kStore, part);
  auto report = copied ? fill(state_dir, part, now) : Result<BackupReport>(fail(copied.error()));
  if (report) {
    if (auto moved = move_into_place(part, to); !moved) report = fail(moved.error());
  }
  if (!report) {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"})
      static_cast<void>(::unlink((part + suffix).c_str()));
    return fail(report.error().with_context("backup"));
  }
  return report;
}

namespace {

// All that may fail is done on a copy, beside what is there.
Result<std::vector<SavedFile>> prepare(const std::string& from, const std::string& part,
                                       BackupReport* out) {
  EM_TRY_VOID(copy_file(from, part));
  EM_TRY(auto db, store::Database::open(part));
  EM_TRY_VOID(check_whole(*db));
  auto files = saved_files(*db);
  if (!files) return fail(files.error().with_context(from));
  EM_TRY_VOID(db->exec("DROP TABLE edgemesh_backup"));
  EM_TRY_VOID(restamp_objects(*db));
  EM_TRY(out->objects, count_objects(*db));
  EM_TRY_VOID(db->exec("PRAGMA journal_mode=DELETE"));
  return files;
}

Result<BackupReport> restore_locked(const std::string& from, const std::string& state_dir,
                                    bool replace, std::chrono::system_clock::time_point now,
                                    const std::string& part) {
  BackupReport out;
  EM_TRY(const auto files, prepare(from, part, &out));
  EM_TRY(out.set_aside, set_aside(state_dir, replace, now, fs::path(part).filename().c_str()));
  for (const SavedFile& file : files) {
    const std::string path = state_dir + "/" + file.path;
    EM_TRY_VOID(make_dirs(fs::path(path).parent_path().string()));
    EM_TRY_VOID(write_file(path, file.data, file.mode));
  }
  out.files = files.size();
  EM_TRY_VOID(move_into_place(part, state_dir + "/" + kStore));
  return out;
}

}  // namespace

Result<BackupReport> restore_backup(const std::string& from, const std::string& state_dir,
                                    bool replace, std::chrono::system_clock::time_point now) {
  EM_TRY_VOID(make_dirs(state_dir));
  auto lock = FileLock::try_acquire(state_dir + "/" + kLock);
  if (!lock) {
    if (lock.error().code != ErrorCode::kUnavailable) return fail(lock.error());
    return fail(ErrorCode::kUnavailable, "edgemesh-cloud runs on {}: stop it first", state_dir);
  }
  const std::string part = state_dir + "/api.db.restore";
  auto done = restore_locked(from, state_dir, replace, now, part);
  if (!done) {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"})
      static_cast<void>(::unlink((part + suffix).c_str()));
  }
  return done;
}

}  // namespace edgemesh::cloud
