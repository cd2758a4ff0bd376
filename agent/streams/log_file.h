// LogFile: reads a container's log as the CRI has it, one line a record:
//
//   2026-11-24T03:50:01.123456789Z stdout F text of the line
//
// (tag P: the line goes on in the next record). What was put aside by rotation
// (<name>.<YYYYMMDD-HHMMSS>) is a part of the log, before the file that is written now; a rotation
// while it is being read is followed without a loss. Where to begin is found from the end (tail)
// and by bisection (since): no more is read than is shown. Blocking. Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/io/fd.h"

namespace edgemesh::streams {

struct LogOptions {
  bool timestamps = false;
  int64_t since = 0;         // Unix nanoseconds; 0: from the beginning
  int64_t tail = -1;         // lines from the end; -1: all
  int64_t limit_bytes = -1;  // of what is shown; -1: no limit
  bool with_stdout = true;
  bool with_stderr = true;
};

// One record taken apart. False: it has another form.
struct LogRecord {
  int64_t time = 0;  // Unix nanoseconds
  std::string_view stamp, stream, text;
  bool partial = false;
};
bool parse_record(std::string_view line, LogRecord* out);
// RFC 3339 with up to nine digits of fraction, "Z" or an offset; -1: it is none.
int64_t parse_time(std::string_view text);

class LogFile {
 public:
  // kNotFound: there is no such file (yet).
  static Result<std::unique_ptr<LogFile>> open(const std::string& path, const LogOptions& options);

  // Appends what is to be shown of the next piece of the log. False: there was no more to read.
  Result<bool> read(std::string* out);
  bool limit_reached() const { return options_.limit_bytes == 0; }

 private:
  struct Segment {
    std::string path;
    io::Fd fd;
    int64_t size = 0;
    int64_t modified = 0;  // Unix nanoseconds
  };
  LogFile(std::string path, const LogOptions& options)
      : path_(std::move(path)), options_(options) {}

  void open_segments();
  bool add_segment(const std::string& path);
  void seek_tail();
  void seek_since();
  Result<bool> next_segment();
  void show(std::string_view line, std::string* out);
  void put(std::string_view text, std::string* out);

  std::string path_;
  LogOptions options_;
  std::vector<Segment> segments_;  // the last is the one that is written
  size_t at_ = 0;                  // of the segments
  int64_t offset_ = 0;
  std::string rest_;       // a record whose end is not written yet
  bool mid_line_ = false;  // the last record shown was a part of a line
};

}  // namespace edgemesh::streams
