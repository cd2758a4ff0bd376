#include "kube/protobuf.h"

#include <array>
#include <bit>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "kube/objects.h"
#include "kube/type_table.h"

namespace edgemesh::kube {

using nlohmann::json;

namespace {

constexpr std::string_view kMagic("k8s\0", 4);
constexpr int kMaxDepth = 40;

tl::unexpected<Error> malformed(std::string_view what) {
  return fail(ErrorCode::kInvalidArgument, "protobuf: {}", what);
}

struct Item {
  uint32_t number = 0;
  int wire = 0;        // 0 varint, 1 eight bytes, 2 bytes, 5 four bytes
  uint64_t value = 0;  // of 0, 1, 5
  std::string_view bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }

  Result<uint64_t> varint() {
    uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return malformed("a number is cut off");
      auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return out;
    }
    return malformed("a number is too long");
  }

  Result<Item> next() {
    EM_TRY(uint64_t key, varint());
    Item out;
    out.number = static_cast<uint32_t>(key >> 3);
    out.wire = static_cast<int>(key & 7);
    if (out.number == 0 || key >> 32 != 0) return malformed("a field has no valid number");
    switch (out.wire) {
      case 0: {
        EM_TRY(out.value, varint());
        return out;
      }
      case 1: return fixed(8, out);
      case 5: return fixed(4, out);
      case 2: {
        EM_TRY(uint64_t size, varint());
        if (size > rest_.size()) return malformed("a field is cut off");
        out.bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return out;
      }
      default: return malformed("a field has a wire type that is not known");
    }
  }

 private:
  Result<Item> fixed(size_t size, Item out) {
    if (rest_.size() < size) return malformed("a field is cut off");
    for (size_t i = size; i-- > 0;) out.value = out.value << 8 | static_cast<uint8_t>(rest_[i]);
    rest_.remove_prefix(size);
    return out;
  }

  std::string_view rest_;
};

Result<json> message(std::string_view bytes, const TypeInfo& type, int depth);

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    auto lead = static_cast<uint8_t>(text[i]);
    size_t more = lead < 0x80       ? 0
                  : lead >> 5 == 6  ? 1
                  : lead >> 4 == 14 ? 2
                  : lead >> 3 == 30 ? 3
                                    : 4;
    if (more == 4 || i + more >= text.size()) return false;
    uint32_t code = more == 0 ? lead : lead & (0x3fU >> more);
    for (size_t j = 1; j <= more; ++j) {
      auto next = static_cast<uint8_t>(text[i + j]);
      if (next >> 6 != 2) return false;
      code = code << 6 | (next & 0x3f);
    }
    constexpr uint32_t kLowest[] = {0, 0x80, 0x800, 0x10000};
    if (code < kLowest[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += more + 1;
  }
  return true;
}

Result<json> text_value(std::string_view text) {
  if (!is_utf8(text)) return malformed("a string is not UTF-8");
  return json(text);
}

std::string base64(std::string_view in) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((in.size() + 2) / 3 * 4);
  for (size_t i = 0; i < in.size(); i += 3) {
    uint32_t block = 0;
    for (size_t j = 0; j < 3; ++j) {
      block = block << 8 | (i + j < in.size() ? static_cast<uint8_t>(in[i + j]) : 0);
    }
    for (size_t j = 0; j < 4; ++j) {
      out += i + j <= in.size() ? kAlphabet[block >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

// The scalar fields of one of the small special messages, by number; bytes by `text`.
struct Small {
  std::array<int64_t, 4> numbers{};
  std::array<std::string_view, 4> texts{};
};
Result<Small> small(std::string_view bytes) {
  Small out;
  Reader reader(bytes);
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    if (item.number >= out.numbers.size()) continue;
    out.numbers[item.number] = static_cast<int64_t>(item.value);
    out.texts[item.number] = item.bytes;
  }
  return out;
}

Result<json> time_value(std::string_view bytes, bool micros) {
  if (bytes.empty()) return json();
  EM_TRY(Small parts, small(bytes));
  std::time_t seconds = parts.numbers[1];
  constexpr int64_t kYear1 = -62135596800, kYear9999 = 253402300799;
  if (seconds == kYear1) return json();  // Go's zero time
  std::tm broken{};
  if (seconds < kYear1 || seconds > kYear9999 || gmtime_r(&seconds, &broken) == nullptr) {
    return malformed("a time is out of range");
  }
  std::string out =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", broken.tm_year + 1900, broken.tm_mon + 1,
                  broken.tm_mday, broken.tm_hour, broken.tm_min, broken.tm_sec);
  if (micros) out += fmt::format(".{:06}", std::abs(parts.numbers[2] / 1000) % 1'000'000);
  return json(out + "Z");
}

Result<json> raw_json(std::string_view bytes) {
  if (bytes.empty()) return json();
  return parse_json(bytes);
}

const TypeInfo& schema_type() {
  return *find_type("apiextensions.JSONSchemaProps");
}

// A schema or something else (B: whether any is allowed, A: several schemas, S: names).
Result<json> schema_or(std::string_view bytes, char form, int depth) {
  bool allows = false;
  json schema, list = json::array();
  Reader reader(bytes);
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    if (form == 'B' && item.number == 1) {
      allows = item.value != 0;
    } else if ((form == 'B' && item.number == 2) || (form != 'B' && item.number == 1)) {
      EM_TRY(schema, message(item.bytes, schema_type(), depth + 1));
    } else if (item.number == 2 && form == 'A') {
      EM_TRY(json one, message(item.bytes, schema_type(), depth + 1));
      list.push_back(std::move(one));
    } else if (item.number == 2) {
      EM_TRY(json text, text_value(item.bytes));
      list.push_back(std::move(text));
    }
  }
  if (!schema.is_null()) return schema;
  return form == 'B' ? json(allows) : list;
}

Result<json> special(const Item& item, char form, int depth) {
  switch (form) {
    case 'T': return time_value(item.bytes, false);
    case 'M': return time_value(item.bytes, true);
    case 'A':
    case 'B':
    case 'S': return schema_or(item.bytes, form, depth);
    default: break;
  }
  EM_TRY(Small parts, small(item.bytes));
  switch (form) {
    case 'D': return json(fmt::format("{}s", static_cast<double>(parts.numbers[1]) / 1e9));
    case 'Q': return text_value(parts.texts[1]);
    case 'I':
      if (parts.numbers[1] != 0) return text_value(parts.texts[3]);
      return json(static_cast<int32_t>(parts.numbers[2]));
    default: return raw_json(parts.texts[1]);  // R, F, J
  }
}

Result<json> string_list(std::string_view bytes) {
  json out = json::array();
  Reader reader(bytes);
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    if (item.number != 1) continue;
    EM_TRY(json text, text_value(item.bytes));
    out.push_back(std::move(text));
  }
  return out;
}

// One value, whatever its shape. Null: absent.
Result<json> value_of(const Item& item, const TypeField& field, int depth) {
  bool wants_bytes = std::string_view("bild").find(field.form) == std::string_view::npos;
  if (wants_bytes != (item.wire == 2))
    return malformed(fmt::format("{}: wrong wire type", field.name));
  switch (field.form) {
    case 's': return text_value(item.bytes);
    case 'b': return json(item.value != 0);
    case 'i': return json(static_cast<int32_t>(item.value));
    case 'l': return json(static_cast<int64_t>(item.value));
    case 'd': {
      auto number = std::bit_cast<double>(item.value);
      if (item.wire != 1 || !std::isfinite(number)) return malformed("a number is not finite");
      return json(number);
    }
    case 'y': return json(base64(item.bytes));
    case 'X': return string_list(item.bytes);
    case '<': return message(item.bytes, *field.type, depth + 1);
    default: return special(item, field.form, depth);
  }
}

bool is_zero(const json& value) {
  if (value.is_null()) return true;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value == json(0);
  return value.empty();
}

Result<> map_entry(std::string_view bytes, const TypeField& field, int depth, json* into) {
  std::string key;
  json value;
  Reader reader(bytes);
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    if (item.number == 1) key = item.bytes;
    if (item.number == 2) {
      EM_TRY(value, value_of(item, field, depth));
    }
  }
  if (!is_utf8(key)) return malformed("a key is not UTF-8");
  if (value.is_null() && field.form == 's') value = "";
  (*into)[key] = std::move(value);
  return {};
}

Result<> add_field(const Item& item, const TypeField& field, int depth, json* object) {
  std::string name(field.name);
  if (field.shape == TypeField::Shape::kMap) {
    if (item.wire != 2) return malformed(fmt::format("{}: wrong wire type", name));
    return map_entry(item.bytes, field, depth, &(*object)[name]);
  }
  // Numbers of a list may stand together.
  bool packed = field.shape == TypeField::Shape::kList && item.wire == 2 &&
                std::string_view("bil").find(field.form) != std::string_view::npos;
  if (packed) {
    Reader reader(item.bytes);
    while (!reader.at_end()) {
      Item one{item.number, 0, 0, {}};
      EM_TRY(one.value, reader.varint());
      EM_TRY(json value, value_of(one, field, depth));
      (*object)[name].push_back(std::move(value));
    }
    return {};
  }
  EM_TRY(json value, value_of(item, field, depth));
  if (field.inlined) {
    for (auto& [key, inner] : value.items()) (*object)[key] = std::move(inner);
  } else if (field.shape == TypeField::Shape::kList) {
    (*object)[name].push_back(std::move(value));
  } else if (!value.is_null() && (field.keeps_zero || !is_zero(value))) {
    (*object)[name] = std::move(value);
  }
  return {};
}

Result<json> message(std::string_view bytes, const TypeInfo& type, int depth) {
  if (depth > kMaxDepth) return malformed("nested too deep");
  json out = json::object();
  Reader reader(bytes);
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    const TypeField* field = type.find(item.number);
    if (field == nullptr) continue;  // of a newer release
    EM_TRY_VOID(add_field(item, *field, depth, &out));
  }
  return out;
}

}  // namespace

Result<json> decode_protobuf(std::string_view body) {
  if (!body.starts_with(kMagic)) return malformed("the body does not start with the mark k8s");
  std::string_view type_meta, raw;
  std::string_view encoding;
  Reader reader(body.substr(kMagic.size()));
  while (!reader.at_end()) {
    EM_TRY(Item item, reader.next());
    if (item.number == 1) type_meta = item.bytes;
    if (item.number == 2) raw = item.bytes;
    if (item.number == 3) encoding = item.bytes;
  }
  if (!encoding.empty()) return malformed("encoded contents are not taken");
  EM_TRY(Small meta, small(type_meta));
  std::string_view api_version = meta.texts[1], kind = meta.texts[2];
  size_t slash = api_version.find('/');
  bool core = slash == std::string_view::npos;
  std::string_view group = core ? std::string_view() : api_version.substr(0, slash);
  std::string_view version = core ? api_version : api_version.substr(slash + 1);
  if (!is_utf8(api_version) || !is_utf8(kind)) return malformed("the kind is not UTF-8");
  const TypeInfo* type = type_of_kind(group, version, kind);
  if (type == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "no kind \"{}\" is registered for version \"{}\"",
                kind, api_version);
  }
  EM_TRY(json out, message(raw, *type, 0));
  out["kind"] = kind;
  out["apiVersion"] = api_version;
  return out;
}

}  // namespace edgemesh::kube
