// Backup of a cloud's state in one file, and its way back.
//
// The file is an SQLite database, mode 0600: the objects of the embedded API as they were at one
// moment, and in table edgemesh_backup the other files of the state directory: the CA with its key,
// keys that tokens are signed with, revoked certificates. Who has it can be the cloud: keep it as
// the CA's key. What each start makes anew (the admin's kubeconfig, the join token) is not in it.
//
// backup() works beside a running cloud. restore() wants it stopped. A restored cloud gives out
// versions above all earlier ones (cloud/api/restamp.h): watchers list again, and nodes take the
// restored objects even where they have seen newer ones.
// Blocking; for commands.
#pragma once

#include <chrono>
#include <string>

#include "core/base/result.h"

namespace edgemesh::cloud {

struct BackupReport {
  size_t objects = 0;
  size_t files = 0;
  std::string set_aside;  // restore: where the state went that was there before
};

// `to` must not exist yet.
Result<BackupReport> make_backup(const std::string& state_dir, const std::string& to,
                                 std::chrono::system_clock::time_point now);

// kAlreadyExists: the directory has a state and `replace` is off. With it that goes into a folder
// before-restore-<time> within.
Result<BackupReport> restore_backup(const std::string& from, const std::string& state_dir,
                                    bool replace, std::chrono::system_clock::time_point now);

}  // namespace edgemesh::cloud
