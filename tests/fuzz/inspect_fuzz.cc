// First bytes of connections: whole and in growing parts; what was decided with less must stay.
#include <cstdlib>
#include <vector>

#include "proxy/inspect/first_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgemesh::proxy;
  auto look = [](std::span<const uint8_t> in, Peek* out) {
    ProxyHeader header;
    out[0] = peek_proxy_header(in, &header);
    if (out[0] == Peek::kYes && header.size > in.size()) std::abort();
    std::vector<uint8_t> buffer;
    ClientHello hello;
    out[1] = peek_client_hello(in, &buffer, &hello);
    size_t seen = hello.server_name.size();
    for (auto name : hello.alpn) seen += name.size();
    if (seen > kMaxClientHello) std::abort();
    int version = 0;
    out[2] = peek_http(in, &version);
  };
  Peek whole[3];
  look({data, size}, whole);
  for (size_t n = 0; n < size; n += 1 + n / 8) {
    Peek part[3];
    look({data, n}, part);
    for (int i = 0; i < 3; ++i)
      if (part[i] != Peek::kMore && part[i] != whole[i]) std::abort();
  }
  return 0;
}
