#include "proxy/http/head.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/http/message.h"

namespace edgemesh::proxy {

using http::equals_ignore_case;

namespace {
constexpr std::string_view kContentLength = "content-length";
constexpr size_t kKeepHeads = 256;        // of a thread
constexpr size_t kKeepBlockBytes = 16384;  // a larger block is not kept for the next message
}  // namespace

std::string_view Head::get(std::string_view name) const {
  for (const FieldView& field : fields_)
    if (field.name.size() == name.size() && equals_ignore_case(field.name, name)) return field.value;
  return {};
}

bool Head::has(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(), [name](const FieldView& field) {
    return field.name.size() == name.size() && equals_ignore_case(field.name, name);
  });
}

char* Head::allocate(size_t bytes) {
  if (blocks_.empty() || blocks_.back().size - used_ < bytes) {
    Block block;
    block.size = std::max(kBlockBytes, bytes);
    block.data.reset(new char[block.size]);
    blocks_.push_back(std::move(block));
    used_ = 0;
  }
  char* at = blocks_.back().data.get() + used_;
  used_ += bytes;
  return at;
}

std::string_view Head::keep(std::string_view text) {
  if (text.empty()) return {};
  char* at = allocate(text.size());
  std::memcpy(at, text.data(), text.size());
  return {at, text.size()};
}

void Head::set(std::string_view name, std::string_view value) {
  remove(name);
  add(name, value);
}

size_t Head::remove(std::string_view name) {
  return std::erase_if(fields_, [name](const FieldView& field) {
    return field.name.size() == name.size() && equals_ignore_case(field.name, name);
  });
}

void Head::set_length(uint64_t bytes) {
  char digits[20];
  auto end = std::to_chars(digits, digits + sizeof digits, bytes).ptr;
  set(kContentLength, {digits, static_cast<size_t>(end - digits)});
  has_length = true;
  length = bytes;
}

void Head::drop_length() {
  remove(kContentLength);
  has_length = false;
  length = 0;
}

void Head::copy_from(const Head& other) {
  clear();
  method = keep(other.method);
  scheme = keep(other.scheme);
  authority = keep(other.authority);
  path = keep(other.path);
  protocol = keep(other.protocol);
  status = other.status;
  version = other.version;
  expect_continue = other.expect_continue;
  has_length = other.has_length;
  length = other.length;
  for (const FieldView& field : other.fields_) add(field.name, field.value);
}

void Head::clear() {
  method = scheme = authority = path = protocol = {};
  status = 0;
  version = HttpVersion::kHttp11;
  expect_continue = has_length = false;
  length = 0;
  fields_.clear();
  if (blocks_.size() > 1 || (!blocks_.empty() && blocks_.front().size > kKeepBlockBytes)) {
    blocks_.resize(1);
    if (blocks_.front().size > kKeepBlockBytes) blocks_.clear();
  }
  used_ = 0;
}

namespace {
struct FreeHeads {
  std::vector<Head*> list;
  ~FreeHeads() {
    for (Head* head : list) delete head;
  }
};
thread_local FreeHeads free_heads;
}  // namespace

void GiveHead::operator()(Head* head) const {
  if (free_heads.list.size() >= kKeepHeads) {
    delete head;
    return;
  }
  head->clear();
  free_heads.list.push_back(head);
}

HeadPtr take_head() {
  if (free_heads.list.empty()) return HeadPtr(new Head);
  Head* head = free_heads.list.back();
  free_heads.list.pop_back();
  return HeadPtr(head);
}

}  // namespace edgemesh::proxy
