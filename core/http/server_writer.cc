#include "core/base/log.h"
#include "core/http/h1_chars.h"
#include "core/http/server_conn.h"
#include "core/http/server_impl.h"

namespace edgemesh::http {

namespace {

bool status_has_no_body(int status) {
  return status < 200 || status == 204 || status == 304;
}

bool framing_field(std::string_view name) {
  return equals_ignore_case(name, "content-length") ||
         equals_ignore_case(name, "transfer-encoding") || equals_ignore_case(name, "connection");
}

}  // namespace

SlotWriter::~SlotWriter() {
  if (slot_->conn == nullptr || slot_->ended) return;
  if (slot_->started) {
    slot_->conn->abort();  // the body is not whole: the client must notice
    return;
  }
  respond({500, {{"Content-Type", "text/plain"}}, "no answer\n"});
}

void SlotWriter::put(std::string_view data) {
  if (slot_->conn != nullptr) slot_->conn->append(*slot_, data);
}

void SlotWriter::emit_head(int status, const Headers& headers, std::string_view framing) {
  std::string head;
  head.reserve(256);
  head += "HTTP/1.1 ";
  head += std::to_string(status);
  head += ' ';
  head += reason_phrase(status);
  head += "\r\n";
  for (const auto& [name, value] : headers) {
    bool upgrade = status == 101 && equals_ignore_case(name, "connection");
    if (framing_field(name) && !upgrade) continue;
    // A CR or LF in a value would let its source write fields of ours.
    if (name.empty() || !all_of_class(name, kToken) || !all_of_class(value, kValue)) {
      EM_LOG(kWarn, slot_->conn->server().options.name,
             "answer field '{}' left out: bad characters", name.substr(0, 40));
      continue;
    }
    head += name;
    head += ": ";
    head += value;
    head += "\r\n";
  }
  head += framing;
  if (status != 101) {
    if (!headers.has("date")) head += slot_->conn->server().date();
    if (!slot_->keep_alive)
      head += "Connection: close\r\n";
    else if (slot_->http10)
      head += "Connection: keep-alive\r\n";
  }
  head += "\r\n";
  put(head);
}

void SlotWriter::respond(Response response) {
  if (slot_->conn == nullptr || slot_->started) return;
  slot_->started = true;
  slot_->no_body = slot_->head_request || status_has_no_body(response.status);
  std::string framing;
  if (!status_has_no_body(response.status)) {
    // A HEAD handler that knows the length without making the body may say it.
    std::string_view given = response.headers.get_or("content-length", "");
    bool use_given = slot_->head_request && response.body.empty() && !given.empty();
    framing = fmt::format("Content-Length: {}\r\n",
                          use_given ? std::string(given) : std::to_string(response.body.size()));
  }
  emit_head(response.status, response.headers, framing);
  if (!slot_->no_body) put(response.body);
  end();
}

void SlotWriter::start(int status, Headers headers) {
  if (slot_->conn == nullptr || slot_->started) return;
  slot_->started = true;
  slot_->no_body = slot_->head_request || status_has_no_body(status);
  std::string framing;
  if (auto length = headers.get("content-length"); length && all_of_class(*length, kToken)) {
    slot_->has_length = true;
    slot_->length_left = std::strtoull(std::string(*length).c_str(), nullptr, 10);
    framing = fmt::format("Content-Length: {}\r\n", slot_->length_left);
  } else if (slot_->http10) {
    slot_->keep_alive = false;  // the end of the connection is the end of the body
  } else if (!status_has_no_body(status)) {
    slot_->chunked = true;
    framing = "Transfer-Encoding: chunked\r\n";
  }
  emit_head(status, headers, framing);
}

bool SlotWriter::write(std::string_view data) {
  if (slot_->conn == nullptr || !slot_->started || slot_->ended) return true;
  if (slot_->no_body || data.empty()) return true;
  if (slot_->has_length) {
    data = data.substr(0, static_cast<size_t>(std::min<uint64_t>(data.size(), slot_->length_left)));
    slot_->length_left -= data.size();
    put(data);
  } else if (slot_->chunked) {
    put(fmt::format("{:x}\r\n", data.size()));
    put(data);
    put("\r\n");
  } else {
    put(data);
  }
  size_t queued = queued_bytes();
  size_t high = slot_->conn->server().options.high_water;
  if (queued > 16 * high) {
    EM_LOG(kWarn, slot_->conn->server().options.name, "a client that does not read is cut off");
    slot_->conn->abort();
    return false;
  }
  if (queued > high) slot_->above_high_water = true;
  return queued <= high;
}

void SlotWriter::end() {
  if (slot_->conn == nullptr || !slot_->started || slot_->ended) return;
  if (slot_->has_length && slot_->length_left > 0 && !slot_->no_body) {
    slot_->conn->abort();
    return;
  }
  if (slot_->chunked && !slot_->no_body) put("0\r\n\r\n");
  slot_->ended = true;
  slot_->conn->slot_ended();
}

void SlotWriter::on_close(UniqueFunction<void()> callback) {
  slot_->on_close = std::move(callback);
}

size_t SlotWriter::queued_bytes() const {
  if (slot_->conn == nullptr) return 0;
  return slot_->pending.size() + (slot_->conn->is_front(*slot_) ? slot_->conn->unsent() : 0);
}

Result<std::unique_ptr<io::Stream>> SlotWriter::upgrade(Headers extra) {
  if (slot_->conn == nullptr)
    return fail(ErrorCode::kConnectionReset, "upgrade: the client went away");
  if (slot_->started || !slot_->conn->is_front(*slot_))
    return fail(ErrorCode::kProtocol, "upgrade: an answer of this connection is not finished");
  slot_->started = true;
  emit_head(101, extra, "");
  slot_->ended = true;
  return slot_->conn->hand_over(*slot_);
}

}  // namespace edgemesh::http
