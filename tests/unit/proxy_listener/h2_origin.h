// An HTTP/2 server that fails in a given state of each answer, and counts what it is given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/io/tcp.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {

class H2Origin {
 public:
  // The answer is a head, the body "fine" in two pieces, and a trailer.
  enum class At { kBeforeHead, kAfterHead, kInBody, kBeforeTrailers };
  enum class Fault {
    kNone,
    kReset,        // RST_STREAM(INTERNAL_ERROR)
    kRefuse,       // RST_STREAM(REFUSED_STREAM)
    kGoaway,       // that still counts the stream: the answer goes on
    kGoawayBelow,  // that does not
    kGoawayClose,  // that counts it, but the connection closes
    kClose,        // the connection, both directions
    kHalfClose,    // our direction of it; what comes is read
    kTcpReset,
    kSilence,
    kGarbage,  // a frame that no peer may send
  };
  explicit H2Origin(io::Loop& loop) : loop_(loop) {
    listener_ = std::move(*io::TcpListener::listen(
        loop, SockAddr{IpAddr::v4(0x7f000001), 0}, [this](io::Fd fd, const SockAddr&) {
          ++accepted;
          auto stream = io::TcpStream::adopt(loop_, std::move(fd));
          if (!stream) return;
          if (reset_accepted) (*stream)->reset();
          if (!reset_accepted)
            connections_.push_back(std::make_unique<Connection>(*this, std::move(*stream)));
        }));
  }
  SockAddr addr() const { return listener_->local_addr(); }

  At at = At::kBeforeHead;
  Fault fault = Fault::kNone;
  int every = 1;       // each n-th stream of all has it
  bool early = false;  // answers with the request's head, and leaves its body unread
  bool reset_accepted = false;
  int accepted = 0, seen = 0, faults = 0, cancelled = 0;  // cancelled: RST_STREAM that came

 private:
  class Connection final : public io::Stream::Handler {
   public:
    Connection(H2Origin& origin, std::unique_ptr<io::Stream> stream)
        : origin_(origin), stream_(std::move(stream)) {
      stream_->set_handler(this);
      say(h2raw::kSettings, 0, 0, "");
      on_readable();
    }
    void on_readable() override {
      uint8_t piece[16384];
      while (stream_ != nullptr) {
        const io::IoResult got = stream_->read(piece);
        if (got.status == io::IoResult::kEof) return end(false);
        if (got.status != io::IoResult::kOk) return;
        input_ += io::as_text({piece, got.n});
        if (!preface_ && input_.size() >= h2raw::kPreface.size()) {
          input_.erase(0, h2raw::kPreface.size());
          preface_ = true;
        }
        while (stream_ != nullptr && preface_ && step()) {
        }
      }
    }
    void on_writable() override {}
    void on_error(const Error&) override { end(false); }

   private:
    uint32_t byte(size_t i) const { return static_cast<uint8_t>(input_[i]); }
    bool step() {
      if (input_.size() < 9) return false;
      const size_t n = byte(0) << 16 | byte(1) << 8 | byte(2);
      if (input_.size() < 9 + n) return false;
      const auto type = static_cast<uint8_t>(byte(3)), flags = static_cast<uint8_t>(byte(4));
      const uint32_t id = byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8);
      input_.erase(0, 9 + n);
      const bool whole = (flags & h2raw::kEndStream) != 0;
      if (type == h2raw::kSettings && (flags & h2raw::kAck) == 0)
        say(h2raw::kSettings, h2raw::kAck, 0, "");
      if (type == h2raw::kRstStream) ++origin_.cancelled;
      if (type == h2raw::kHeaders && id > last_ && id <= taken_) {
        last_ = id;
        ++origin_.seen;
        bad_ = origin_.fault != Fault::kNone && origin_.seen % origin_.every == 0;
        const bool at_once = bad_ && origin_.at == At::kBeforeHead;
        if (at_once && !whole) answered_early_ = id;
        if (whole || at_once || origin_.early) answer(id);
      } else if (type == h2raw::kData && whole && !origin_.early && id <= taken_ &&
                 id != answered_early_) {
        answer(id);
      } else if (type == h2raw::kData && n > 0 && !origin_.early) {
        say(h2raw::kWindowUpdate, 0, 0, h2raw::number(static_cast<uint32_t>(n)));
        say(h2raw::kWindowUpdate, 0, id, h2raw::number(static_cast<uint32_t>(n)));
      }
      return true;
    }
    void answer(uint32_t id) {
      const bool bad = std::exchange(bad_, false);
      auto fails = [&](At at) { return bad && origin_.at == at && stream_ != nullptr && fail(id); };
      if (fails(At::kBeforeHead)) return;
      say(h2raw::kHeaders, h2raw::kEndHeaders, id, "\x88");
      if (fails(At::kAfterHead)) return;
      say(h2raw::kData, 0, id, "fi");
      if (fails(At::kInBody)) return;
      say(h2raw::kData, 0, id, "ne");
      if (fails(At::kBeforeTrailers)) return;
      say(h2raw::kHeaders, h2raw::kEndHeaders | h2raw::kEndStream, id, h2raw::field("x-sum", "1"));
    }
    // True: nothing more of this answer.
    bool fail(uint32_t id) {
      ++origin_.faults;
      const Fault fault = origin_.fault;
      auto reset = [&](uint32_t code) { say(h2raw::kRstStream, 0, id, h2raw::number(code)); };
      auto go_away = [&](uint32_t last) {
        taken_ = last;
        say(h2raw::kGoaway, 0, 0, h2raw::number(last) + h2raw::number(0));
      };
      if (fault == Fault::kReset) reset(2);
      if (fault == Fault::kRefuse) reset(7);
      if (fault == Fault::kGoaway || fault == Fault::kGoawayClose) go_away(id);
      if (fault == Fault::kGoawayBelow) go_away(id > 1 ? id - 2 : 0);
      if (fault == Fault::kGarbage) say(h2raw::kData, 0, 0, "no stream has this id");
      if (fault == Fault::kGoawayClose || fault == Fault::kClose) end(false);
      if (fault == Fault::kTcpReset) end(true);
      if (fault == Fault::kHalfClose) stream_->shutdown_write();
      return fault != Fault::kGoaway;
    }
    void say(uint8_t type, uint8_t flags, uint32_t id, std::string_view payload) {
      if (stream_ != nullptr) stream_->write(io::as_bytes(h2raw::frame(type, flags, id, payload)));
    }
    void end(bool reset) {
      if (stream_ == nullptr) return;
      if (reset) stream_->reset();
      if (!reset) stream_->close_both();
      origin_.loop_.defer([stream = std::move(stream_)] {});
    }
    H2Origin& origin_;
    std::unique_ptr<io::Stream> stream_;
    std::string input_;
    uint32_t last_ = 0;
    uint32_t taken_ = UINT32_MAX;  // what a GOAWAY said: nothing above is looked at
    uint32_t answered_early_ = 0;
    bool preface_ = false;
    bool bad_ = false;
  };
  io::Loop& loop_;
  std::unique_ptr<io::TcpListener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace edgemesh::proxy
