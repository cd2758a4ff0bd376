// What the tests of endpoints' faults share: requests that are counted by how they ended.
#pragma once

#include <string>
#include <vector>

#include "proxy/route/matchers.h"
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {

class FaultsTest : public ListenerTest {
 protected:
  [[nodiscard]] Result<> put(const std::vector<SockAddr>& endpoints, const std::string& more = "",
                             const std::string& cluster = "") {
    std::string list;
    for (const SockAddr& one : endpoints)
      list += fmt::format("{}{{address: \"{}\"}}", list.empty() ? "" : ", ", one.to_string());
    EM_TRY(auto config,
           model::parse_config(
               fmt::format("listeners:\n- {{name: l, address: 127.0.0.1:0, chains: [{{http: "
                           "{{routes: r}}}}]}}\n"
                           "routes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes:\n    - "
                           "{{match: {{prefix: /}}, cluster: c, timeouts: {{route: 5s}}{}}}\n"
                           "clusters:\n- {{name: c, endpoints: [{}]{}}}\n",
                           more, list, cluster),
               "test"));
    return proxy_->apply(config);
  }
  struct Counts {
    int fine = 0, errors = 0, cut = 0;  // 200 and whole; 5xx; neither
  };
  // `n` requests, each on a connection of its own; `pass` of the clock's time goes by while it
  // waits.
  Counts ask(int n, const std::string& request, Duration pass = {}) {
    Counts out;
    for (int i = 0; i < n; ++i) {
      auto& client = dial("l");
      client.send(request);
      settle(3);
      const auto done = [&] { return client.eof || client.failed || whole(client.received); };
      // More than once: tries after the first wait, too.
      for (int waits = 0; waits < 4 && pass > Duration::zero() && !done(); ++waits) advance(pass);
      EXPECT_TRUE(until(done)) << client.received;
      if (client.received.find(" 200 ") != std::string::npos && whole(client.received))
        ++out.fine;
      else if (client.received.find("HTTP/1.1 5") == 0)
        ++out.errors;
      else
        ++out.cut;
      client.drop();
      settle(2);
    }
    return out;
  }
  // One message: with a length, or chunked.
  static bool whole(const std::string& answer) {
    const size_t head = answer.find("\r\n\r\n");
    if (head == std::string::npos) return false;
    const std::string fields = to_lower(answer.substr(0, head));
    if (fields.find("transfer-encoding: chunked") != std::string::npos)
      return answer.ends_with("\r\n\r\n") && answer.find("\r\n0\r\n", head) != std::string::npos;
    const size_t field = fields.find("content-length: ");
    return field != std::string::npos &&
           answer.size() >= head + 4 + std::stoul(fields.substr(field + 16));
  }
  static std::string post(const std::string& path, size_t size) {
    return fmt::format("POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", path, size) +
           std::string(size, 'x');
  }
  int answers(const std::string& of_class) {
    const std::string line =
        metric("edgemesh_http_answers_total{listener=\"l\",class=\"" + of_class + "\"}");
    return line.empty() ? -1 : std::stoi(line.substr(line.rfind(' ') + 1));
  }
};

}  // namespace edgemesh::proxy
