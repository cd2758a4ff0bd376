#include "agent/streams/log_stream.h"

#include "core/base/log.h"

namespace edgemesh::streams {
namespace {

// What is read at a time: a few of these wait in the writer at most.
constexpr size_t kPiece = 128 << 10;

// Used by one pool thread at a time, and by the loop between.
struct Reader {
  std::string path;
  LogOptions options;
  std::unique_ptr<LogFile> file;
  std::string text;
  bool at_end = false;
  Result<> result;

  void run() {
    text.clear();
    at_end = false;
    if (file == nullptr) {
      auto opened = LogFile::open(path, options);
      if (!opened) {
        result = fail(std::move(opened).error());
        return;
      }
      file = std::move(*opened);
    }
    while (!at_end && text.size() < kPiece) {
      const auto more = file->read(&text);
      if (!more) {
        result = fail(more.error());
        return;
      }
      at_end = !*more;
    }
  }
};

class LogStreamImpl final : public LogStream {
 public:
  LogStreamImpl(io::Loop& loop, std::string path, const Options& options,
                std::shared_ptr<http::ResponseWriter> writer, Runs runs, Failure failure,
                UniqueFunction<void()> done)
      : loop_(loop),
        options_(options),
        writer_(std::move(writer)),
        runs_(std::move(runs)),
        failure_(std::move(failure)),
        done_(std::move(done)),
        poll_(loop, [this] { read(); }),
        last_data_(loop.now()) {
    reader_->path = std::move(path);
    reader_->options = options.log;
    writer_->on_close([this, alive = alive_] {
      if (*alive) end();
    });
    read();
  }
  ~LogStreamImpl() override { *alive_ = false; }

 private:
  void read();
  void on_read();
  void at_end();
  void end();

  io::Loop& loop_;
  Options options_;
  std::shared_ptr<http::ResponseWriter> writer_;
  Runs runs_;
  Failure failure_;
  UniqueFunction<void()> done_;
  io::Timer poll_;
  TimePoint last_data_;
  std::shared_ptr<Reader> reader_ = std::make_shared<Reader>();
  bool started_ = false;
  bool asked_ = false;
  bool asking_ = false;
  bool ended_ = false;  // the container: what is read from now on is the last
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

void LogStreamImpl::read() {
  loop_.offload([reader = reader_] { reader->run(); },
                [this, alive = alive_] {
                  if (*alive && done_) on_read();
                });
}

void LogStreamImpl::on_read() {
  if (!reader_->result) {
    if (!started_) writer_->respond(failure_(reader_->result.error()));
    return end();
  }
  if (!started_) writer_->start(200, {{"Content-Type", "text/plain"}});
  started_ = true;
  const bool taken = writer_->write(reader_->text);
  if (!reader_->text.empty()) last_data_ = loop_.now();
  if (!taken && !writer_->closed()) {
    return writer_->on_drain([this, alive = alive_] {
      if (*alive && done_) reader_->at_end ? at_end() : read();
    });
  }
  reader_->at_end ? at_end() : read();
}

void LogStreamImpl::at_end() {
  if (!options_.follow || ended_ || reader_->file->limit_reached()) {
    writer_->end();
    return end();
  }
  const bool silent = !asked_ || loop_.now() - last_data_ >= options_.ask;
  if (!silent || asking_) return poll_.start(options_.poll);
  asking_ = asked_ = true;
  runs_([this, alive = alive_](bool runs) {
    if (!*alive || !done_) return;
    asking_ = false;
    ended_ = !runs;
    last_data_ = loop_.now();
    poll_.start(runs ? options_.poll : Duration::zero());
  });
}

void LogStreamImpl::end() {
  if (!done_) return;
  poll_.stop();
  writer_->on_close(nullptr);
  writer_.reset();
  loop_.defer([alive = alive_, done = std::move(done_)] {
    if (*alive) done();
  });
  done_ = nullptr;
}

}  // namespace

std::unique_ptr<LogStream> LogStream::start(io::Loop& loop, std::string path, Options options,
                                            std::shared_ptr<http::ResponseWriter> writer, Runs runs,
                                            Failure failure, UniqueFunction<void()> done) {
  return std::make_unique<LogStreamImpl>(loop, std::move(path), options, std::move(writer),
                                         std::move(runs), std::move(failure), std::move(done));
}

}  // namespace edgemesh::streams
