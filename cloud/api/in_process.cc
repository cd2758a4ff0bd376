#include "cloud/api/in_process.h"

namespace edgemesh::cloud {

namespace {

class Collector final : public http::ResponseWriter {
 public:
  explicit Collector(UniqueFunction<void(http::Response)> done) : done_(std::move(done)) {}
  ~Collector() override {
    if (!ended_) respond({.status = 500, .headers = {}, .body = {}});
  }
  void respond(http::Response response) override {
    response_ = std::move(response);
    end();
  }
  void start(int status, http::Headers headers) override {
    response_.status = status;
    response_.headers = std::move(headers);
  }
  bool write(std::string_view data) override {
    response_.body += data;
    return true;
  }
  void end() override {
    if (std::exchange(ended_, true)) return;
    auto done = std::move(done_);
    done(std::move(response_));
  }
  void on_drain(UniqueFunction<void()>) override {}
  void on_close(UniqueFunction<void()>) override {}
  bool closed() const override { return ended_; }
  size_t queued_bytes() const override { return 0; }
  Result<std::unique_ptr<io::Stream>> upgrade(http::Headers) override {
    return fail(ErrorCode::kInvalidArgument, "there is no connection to hand over");
  }

 private:
  UniqueFunction<void(http::Response)> done_;
  http::Response response_;
  bool ended_ = false;
};

}  // namespace

void call_in_process(ApiServer& server, http::Request request,
                     UniqueFunction<void(http::Response)> done) {
  server.handle(std::move(request), std::make_shared<Collector>(std::move(done)));
}

}  // namespace edgemesh::cloud
