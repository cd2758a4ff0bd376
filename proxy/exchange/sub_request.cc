#include "proxy/exchange/sub_request.h"

#include "proxy/exchange/l7_worker.h"
#include "proxy/upstream/outlier.h"

namespace edgemesh::proxy {

std::unique_ptr<SubRequest> SubRequest::start(L7Worker& worker, const SubRequestOptions& options,
                                              HeadPtr head, std::vector<uint8_t> body, Done done) {
  std::unique_ptr<SubRequest> made(
      new SubRequest(worker, options, std::move(head), std::move(body), std::move(done)));
  made->timer_.start(options.timeout);
  if (auto begun = made->begin(options.cluster); !begun) {
    made->failed_ = fail(begun.error());
    made->failed_at_once_ = true;
    made->timer_.start(Duration::zero());
  }
  return made;
}

SubRequest::SubRequest(L7Worker& worker, const SubRequestOptions& options, HeadPtr head,
                       std::vector<uint8_t> body, Done done)
    : worker_(worker),
      request_(std::move(head)),
      body_(std::move(body)),
      done_(std::move(done)),
      max_answer_(options.max_answer),
      keep_answer_(options.keep_answer),
      failed_(fail(ErrorCode::kTimeout, "no answer in time")),
      timer_(worker.loop(), [this] {
        if (host_ && !failed_at_once_) report_outcome(*host_, Outcome::kLocalFailure);
        end(std::move(failed_));
      }) {}

Result<> SubRequest::begin(std::string_view name) {
  ClusterState* cluster = worker_.clusters().find(name);
  if (cluster == nullptr) return fail(ErrorCode::kNotFound, "no cluster {}", name);
  PickContext context;
  context.has_hash = true;
  context.hash = worker_.random().next();
  Host* host = cluster->pick(context);
  if (host == nullptr) return fail(ErrorCode::kUnavailable, "cluster {}: no healthy endpoint", name);
  ticket_ = RequestTicket::take(*host, model::RequestPriority::kDefault);
  if (!ticket_) return fail(ErrorCode::kResourceExhausted, "cluster {}: request limit", name);
  host_ = HostRef(host);
  PoolRequest request;
  request.handler = this;
  PoolAnswer answer = worker_.pool().request(*host, request, *this);
  if (answer.failure != PoolFailure::kNone)
    return fail(ErrorCode::kUnavailable, "cluster {}: {}: {}", name, to_string(answer.failure),
                answer.error.message);
  if (answer.stream != nullptr) send(std::move(answer.stream));
  return {};
}

void SubRequest::send(StreamPtr stream) {
  stream_ = std::move(stream);
  request_->drop_length();
  if (!body_.empty()) request_->set_length(body_.size());
  stream_->send_head(*request_, body_.empty());
  if (!body_.empty()) stream_->send_data(body_, true);
}

void SubRequest::end(Result<SubAnswer> result) {
  timer_.stop();
  cancel();
  stream_.reset();
  ticket_ = RequestTicket();
  Done done = std::move(done_);
  done(std::move(result));  // may destroy this
}

void SubRequest::on_pool_stream(StreamPtr stream, const ConnectionInfo&) {
  send(std::move(stream));
}

void SubRequest::on_pool_failure(PoolFailure failure, const Error& error) {
  end(fail(ErrorCode::kUnavailable, "{}: {}", to_string(failure), error.message));
}

void SubRequest::on_head(HeadPtr head, bool ended) {
  if (head->status < 200) return;
  report_outcome(*host_, outcome_of_status(head->status));
  answer_.head = std::move(head);
  if (ended) end(std::move(answer_));
}

void SubRequest::on_data(std::span<const uint8_t> data, bool ended) {
  if (keep_answer_ && answer_.body.size() + data.size() > max_answer_)
    return end(fail(ErrorCode::kResourceExhausted, "the answer is longer than {} bytes", max_answer_));
  if (keep_answer_) answer_.body.append(io::as_text(data));
  if (ended) end(std::move(answer_));
}

void SubRequest::on_trailers(HeadPtr) {
  end(std::move(answer_));
}

void SubRequest::on_reset(ResetReason, std::string_view detail) {
  if (answer_.head == nullptr) report_outcome(*host_, Outcome::kLocalFailure);
  end(fail(ErrorCode::kConnectionReset, "{}", detail));
}

}  // namespace edgemesh::proxy
