#include "p2p/h3_codec.h"

#include <nghttp3/nghttp3.h>

#include <algorithm>

#include "p2p/varint.h"

namespace edgemesh::p2p {

namespace {

enum FrameType : uint64_t {
  kData = 0x0,
  kHeaders = 0x1,
  kCancelPush = 0x3,
  kSettings = 0x4,
  kPushPromise = 0x5,
  kGoaway = 0x7,
  kMaxPushId = 0xd,
};

Result<H3Fields> decode_section(const std::string& section) {
  nghttp3_qpack_decoder* decoder = nullptr;
  nghttp3_qpack_stream_context* context = nullptr;
  const nghttp3_mem* mem = nghttp3_mem_default();
  if (nghttp3_qpack_decoder_new(&decoder, 0, 0, mem) != 0)
    return fail(ErrorCode::kResourceExhausted, "no memory");
  std::unique_ptr<nghttp3_qpack_decoder, void (*)(nghttp3_qpack_decoder*)> own(
      decoder, nghttp3_qpack_decoder_del);
  if (nghttp3_qpack_stream_context_new(&context, 0, mem) != 0)
    return fail(ErrorCode::kResourceExhausted, "no memory");
  std::unique_ptr<nghttp3_qpack_stream_context, void (*)(nghttp3_qpack_stream_context*)> own_context(
      context, nghttp3_qpack_stream_context_del);

  H3Fields fields;
  const auto* at = reinterpret_cast<const uint8_t*>(section.data());  // NOLINT
  size_t left = section.size();
  size_t decoded_bytes = 0;
  while (true) {
    nghttp3_qpack_nv nv;
    uint8_t flags = 0;
    auto n = nghttp3_qpack_decoder_read_request(decoder, context, &nv, &flags, at, left, 1);
    if (n < 0) return fail(ErrorCode::kProtocol, "bad field section: {}", nghttp3_strerror(static_cast<int>(n)));
    at += n;
    left -= static_cast<size_t>(n);
    if ((flags & NGHTTP3_QPACK_DECODE_FLAG_BLOCKED) != 0)
      return fail(ErrorCode::kProtocol, "field section uses a dynamic table that is not there");
    if ((flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT) != 0) {
      auto name = nghttp3_rcbuf_get_buf(nv.name);
      auto value = nghttp3_rcbuf_get_buf(nv.value);
      decoded_bytes += name.len + value.len + 32;
      if (decoded_bytes <= H3StreamReader::kMaxFieldSection)
        fields.emplace_back(std::string(reinterpret_cast<char*>(name.base), name.len),      // NOLINT
                            std::string(reinterpret_cast<char*>(value.base), value.len));  // NOLINT
      nghttp3_rcbuf_decref(nv.name);
      nghttp3_rcbuf_decref(nv.value);
      if (decoded_bytes > H3StreamReader::kMaxFieldSection)
        return fail(ErrorCode::kProtocol, "field section is too large");
    }
    if ((flags & NGHTTP3_QPACK_DECODE_FLAG_FINAL) != 0) return fields;
    if (n == 0 && (flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT) == 0)
      return fail(ErrorCode::kProtocol, "field section is cut short");
  }
}

}  // namespace

std::string h3_control_preface(bool datagrams) {
  // Stream type 0, then SETTINGS: extended CONNECT (RFC 9220), datagrams (RFC 9297); else defaults (no
  // dynamic table).
  return datagrams ? std::string("\x00\x04\x04\x08\x01\x33\x01", 7)
                   : std::string("\x00\x04\x02\x08\x01", 5);
}

Result<std::string> h3_encode_headers(const H3Fields& fields) {
  nghttp3_qpack_encoder* encoder = nullptr;
  const nghttp3_mem* mem = nghttp3_mem_default();
  if (nghttp3_qpack_encoder_new(&encoder, 0, mem) != 0)
    return fail(ErrorCode::kResourceExhausted, "no memory");
  std::vector<nghttp3_nv> list;
  for (const auto& [name, value] : fields) {
    nghttp3_nv nv{};
    nv.name = reinterpret_cast<uint8_t*>(const_cast<char*>(name.data()));    // NOLINT
    nv.namelen = name.size();
    nv.value = reinterpret_cast<uint8_t*>(const_cast<char*>(value.data()));  // NOLINT
    nv.valuelen = value.size();
    list.push_back(nv);
  }
  nghttp3_buf prefix, body, stream;
  nghttp3_buf_init(&prefix);
  nghttp3_buf_init(&body);
  nghttp3_buf_init(&stream);
  int rc = nghttp3_qpack_encoder_encode(encoder, &prefix, &body, &stream, 0, list.data(), list.size());
  std::string section;
  if (rc == 0) {
    section.append(reinterpret_cast<char*>(prefix.pos), nghttp3_buf_len(&prefix));  // NOLINT
    section.append(reinterpret_cast<char*>(body.pos), nghttp3_buf_len(&body));      // NOLINT
  }
  nghttp3_buf_free(&prefix, mem);
  nghttp3_buf_free(&body, mem);
  nghttp3_buf_free(&stream, mem);
  nghttp3_qpack_encoder_del(encoder);
  if (rc != 0) return fail(ErrorCode::kInternal, "field section: {}", nghttp3_strerror(rc));
  uint8_t header[16];
  size_t n = put_varint(kHeaders, header);
  n += put_varint(section.size(), header + n);
  return std::string(reinterpret_cast<char*>(header), n) + section;  // NOLINT
}

size_t h3_data_header(uint64_t payload, uint8_t* out) {
  out[0] = kData;
  return 1 + put_varint(payload, out + 1);
}

Result<> H3StreamReader::on_header(uint64_t type, uint64_t length) {
  switch (type) {
    case kData:
      if (!got_headers_ || got_trailers_)
        return fail(ErrorCode::kProtocol, "DATA before HEADERS or after trailers");
      break;
    case kHeaders:
      if (got_trailers_) return fail(ErrorCode::kProtocol, "HEADERS after trailers");
      if (length > kMaxFieldSection) return fail(ErrorCode::kProtocol, "field section is too large");
      break;
    case kCancelPush:
    case kSettings:
    case kPushPromise:
    case kGoaway:
    case kMaxPushId:
      return fail(ErrorCode::kProtocol, "frame type {} on a request stream", type);
    default:
      break;  // reserved and unknown types are skipped
  }
  type_ = type;
  left_ = length;
  state_ = State::kPayload;
  return {};
}

Result<> H3StreamReader::end_section(Sink& sink) {
  EM_TRY(H3Fields fields, decode_section(section_));
  section_.clear();
  section_.shrink_to_fit();
  if (got_headers_) {
    got_trailers_ = true;
    return {};
  }
  got_headers_ = true;
  sink.on_h3_headers(std::move(fields));
  return {};
}

Result<> H3StreamReader::feed(std::span<const uint8_t> data, Sink& sink) {
  while (!data.empty() || (state_ == State::kPayload && left_ == 0)) {
    if (state_ == State::kType) {
      // A header is at most two varints; bytes taken too many are counted back below.
      size_t held = prefix_.size();
      size_t take = std::min<size_t>(16 - held, data.size());
      prefix_.append(reinterpret_cast<const char*>(data.data()), take);  // NOLINT
      uint64_t type = 0;
      uint64_t length = 0;
      size_t a = get_varint(prefix_, &type);
      size_t b = a == 0 ? 0 : get_varint(std::string_view(prefix_).substr(a), &length);
      if (b == 0) {  // not complete: fewer than 16 bytes were there
        data = data.subspan(take);
        continue;
      }
      data = data.subspan(a + b - held);
      prefix_.clear();
      EM_TRY_VOID(on_header(type, length));
      continue;
    }
    auto n = static_cast<size_t>(std::min<uint64_t>(left_, data.size()));
    auto part = data.first(n);
    data = data.subspan(n);
    left_ -= n;
    if (type_ == kData && n > 0) sink.on_h3_data(part);
    if (type_ == kHeaders) section_.append(reinterpret_cast<const char*>(part.data()), n);  // NOLINT
    if (left_ > 0) continue;
    state_ = State::kType;
    if (type_ == kHeaders) EM_TRY_VOID(end_section(sink));
  }
  return {};
}

Result<> H3UniReader::error(H3Error code, std::string_view what) {
  error_code_ = code;
  return fail(ErrorCode::kProtocol, "control stream: {}", what);
}

// Reads `numbers` varints that stand together. False: not complete, and all of `data` is kept.
bool H3UniReader::take_head(std::span<const uint8_t>* data, size_t numbers, uint64_t* out) {
  const size_t before = held_.size();
  const size_t take = std::min<size_t>(8 * numbers - before, data->size());
  held_.append(reinterpret_cast<const char*>(data->data()), take);  // NOLINT
  size_t used = 0;
  for (size_t i = 0; i < numbers; ++i) {
    const size_t n = get_varint(std::string_view(held_).substr(used), &out[i]);
    if (n == 0) {
      *data = data->subspan(take);
      return false;
    }
    used += n;
  }
  held_.clear();
  *data = data->subspan(used - before);
  return true;
}

Result<> H3UniReader::on_frame(uint64_t type, uint64_t length) {
  if (!settings_ && type != kSettings) return error(kH3MissingSettings, "it begins without settings");
  if (type == kData || type == kHeaders || type == kPushPromise || (settings_ && type == kSettings))
    return error(kH3FrameUnexpected, "a frame that may not come there");
  if (type == kSettings && length > kMaxSettings)
    return error(kH3ExcessiveLoad, "the settings are too many");
  left_ = length;
  state_ = type == kSettings ? State::kSettings : State::kSkip;
  return {};
}

Result<> H3UniReader::read_settings() {
  constexpr uint64_t kExtendedConnect = 0x08, kDatagram = 0x33;
  Settings settings;
  std::string_view in = held_;
  while (!in.empty()) {
    uint64_t id = 0, value = 0;
    const size_t a = get_varint(in, &id);
    const size_t b = a == 0 ? 0 : get_varint(in.substr(a), &value);
    if (b == 0) return error(kH3FrameError, "the settings are cut short");
    in.remove_prefix(a + b);
    if ((id == kDatagram || id == kExtendedConnect) && value > 1)
      return error(kH3SettingsError, "a setting is neither 0 nor 1");
    if (id == 0 || (id >= 0x02 && id <= 0x05))
      return error(kH3SettingsError, "a setting of HTTP/2");
    if (id == kDatagram) settings.datagrams = value == 1;
  }
  held_.clear();
  held_.shrink_to_fit();
  settings_ = settings;
  return {};
}

Result<> H3UniReader::feed(std::span<const uint8_t> data) {
  uint64_t head[2];
  for (;;) {
    switch (state_) {
      case State::kOther:
        return {};
      case State::kStreamType:
        if (!take_head(&data, 1, head)) return {};
        state_ = head[0] == 0 ? State::kFrame : State::kOther;
        break;
      case State::kFrame:
        if (!take_head(&data, 2, head)) return {};
        EM_TRY_VOID(on_frame(head[0], head[1]));
        break;
      case State::kSettings:
      case State::kSkip: {
        const auto n = static_cast<size_t>(std::min<uint64_t>(left_, data.size()));
        if (state_ == State::kSettings)
          held_.append(reinterpret_cast<const char*>(data.data()), n);  // NOLINT
        data = data.subspan(n);
        left_ -= n;
        if (left_ > 0) return {};
        if (state_ == State::kSettings) EM_TRY_VOID(read_settings());
        state_ = State::kFrame;
        break;
      }
    }
  }
}

}  // namespace edgemesh::p2p
