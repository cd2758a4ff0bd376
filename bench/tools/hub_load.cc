// hub_load: thousands of simulated nodes for scripts/bench hub, in one process and one thread.
//
//   hub_load --state DIR --nodes N [--to 127.0.0.1] [--port 10000] [--sources 8] [--name load]
//
// DIR is the state directory of the cloud: certificates are signed with its CA. Reads commands from
// standard input, one a line, and answers each with one JSON line; meanwhile nodes live on. Times
// are CLOCK_MONOTONIC.
//   certificates          makes one for each node
//   connect RATE SECONDS  at most RATE new ones a second (0: as they like), until all are synced or
//   the time is over wait COUNT SECONDS    until COUNT nodes are synced down COUNT SECONDS    until
//   no more than COUNT are mark TEXT             from now on the first message with TEXT is timed
//   on each node marked COUNT SECONDS  waits for COUNT of them slow|silent|flood FIRST COUNT 0|1
//   query FIRST COUNT EACH SECONDS     each sends EACH queries; until all are answered
//   objects FIRST COUNT TOTAL SECONDS  until these nodes together hold TOTAL distinct object
//   versions trips SECONDS         round trips of pings from now on state, quit
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <functional>
#include <sstream>

#include "bench/tools/hub_node.h"
#include "bench/tools/net_util.h"
#include "core/tls/x509.h"

namespace edgemesh::bench {
namespace {

double percentile(std::vector<double>& values, double p) {
  if (values.empty()) return -1;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p / 100 * static_cast<double>(values.size() - 1) + 0.5)];
}

class Load {
 public:
  explicit Load(std::map<std::string, std::string> args) : args_(std::move(args)) {
    fleet_.address = get("to", "127.0.0.1");
    fleet_.port = static_cast<uint16_t>(std::stoi(get("port", "10000")));
    fleet_.sources = std::stoi(get("sources", "8"));
    count_ = std::stoul(get("nodes", "1"));
    fleet_.epoll = ::epoll_create1(EPOLL_CLOEXEC);
    ::fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(fleet_.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
  }

  void run() {
    while (!quit_) {
      turn();
      take_commands();
    }
    nodes_.clear();
  }

 private:
  std::string get(const char* name, const char* otherwise) const {
    const auto it = args_.find(name);
    return it == args_.end() ? otherwise : it->second;
  }

  void turn() {
    epoll_event events[512];
    const int n = ::epoll_wait(fleet_.epoll, events, 512, 5);
    for (int i = 0; i < n; ++i) {
      if (events[i].data.ptr != nullptr)
        static_cast<SimNode*>(events[i].data.ptr)->on_event(events[i].events);
    }
    // Each node is looked at every 50 ms or so.
    const double now = seconds_now();
    longest_turn_ = std::max(longest_turn_, now - last_turn_);
    fleet_.patience += std::min(now - last_turn_, 0.02);
    last_turn_ = now;
    const double since = std::min(now - last_tick_, 0.05);
    if (nodes_.empty() || since < 0.005) return;
    last_tick_ = now;
    const size_t part =
        std::max<size_t>(1, static_cast<size_t>(static_cast<double>(nodes_.size()) * since / 0.05));
    for (size_t i = 0; i < part; ++i) {
      nodes_[next_]->tick(now);
      next_ = (next_ + 1) % nodes_.size();
    }
    pace(now);
  }

  void pace(double now) {
    while (paced_ < nodes_.size() &&
           (rate_ <= 0 || now - pace_begun_ >= static_cast<double>(paced_) / rate_)) {
      if (rate_ <= 0 || fleet_.connecting < 400)
        nodes_[paced_++]->enable(true);
      else
        break;
    }
  }

  void take_commands() {
    char buffer[4096];
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got == 0) quit_ = true;
    if (got > 0) input_.append(buffer, static_cast<size_t>(got));
    for (size_t end; !quit_ && (end = input_.find('\n')) != std::string::npos;) {
      const std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      command(line);
      std::fflush(stdout);
    }
  }

  // Lives on until the condition holds; how long it took.
  double until(double limit, const std::function<bool()>& done) {
    const double begun = seconds_now();
    while (!done() && seconds_now() - begun < limit) turn();
    return seconds_now() - begun;
  }

  void command(const std::string& line) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "quit") return void(quit_ = true);
    if (name == "certificates") return certificates();
    if (name == "connect") return connect(words);
    if (name == "wait" || name == "down") return wait(words, name == "wait");
    if (name == "mark") {
      words >> fleet_.marker;
      fleet_.marked.clear();
      return state(0);
    }
    if (name == "marked") return marked(words);
    if (name == "slow" || name == "silent" || name == "flood") return misbehave(name, words);
    if (name == "query") return query(words);
    if (name == "objects") return objects(words);
    if (name == "trips") return trips(words);
    state(0);
  }

  void state(double seconds) {
    fmt::print(
        R"({{"seconds":{:.3f},"now":{:.6f},"connecting":{},"open":{},"synced":{},"closed":{},"failed":{},)"
        R"("confirmed":{},"error":"{}"}})"
        "\n",
        seconds, seconds_now(), fleet_.connecting, fleet_.open, fleet_.synced, fleet_.closed,
        fleet_.failed, fleet_.confirmed, clean(fleet_.last_error));
  }
  static std::string clean(std::string text) {
    std::erase_if(
        text, [](char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 32; });
    return text;
  }

  void certificates() {
    const double begun = seconds_now();
    const tls::CaPair ca{read(get("state", ".") + "/ca/ca.crt"),
                         read(get("state", ".") + "/ca/ca.key")};
    const auto key = tls::generate_key_pem();
    if (!key) return stop(key.error().message);
    fleet_.tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(fleet_.tls, TLS1_3_VERSION);
    SSL_CTX_set_mode(fleet_.tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(fleet_.tls, SSL_SESS_CACHE_OFF);
    BIO* bio = BIO_new_mem_buf(ca.cert_pem.data(), static_cast<int>(ca.cert_pem.size()));
    X509* root = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(fleet_.tls), root);
    X509_free(root);
    BIO_free(bio);
    // A real node verifies the cloud with a processor of its own; here all share one, with the
    // cloud's beside it.
    SSL_CTX_set_verify(fleet_.tls, args_.contains("verify") ? SSL_VERIFY_PEER : SSL_VERIFY_NONE,
                       nullptr);
    bio = BIO_new_mem_buf(key->data(), static_cast<int>(key->size()));
    EVP_PKEY* private_key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(fleet_.tls, private_key);
    EVP_PKEY_free(private_key);
    BIO_free(bio);
    for (size_t i = 0; i < count_; ++i) {
      const std::string name = fmt::format("{}-{:05}", get("name", "load"), i);
      const auto csr = tls::make_csr_der(
          *key, {.common_name = "system:node:" + name, .organizations = {"system:nodes"}});
      if (!csr) return stop(csr.error().message);
      const auto der = tls::sign_csr(
          ca, *csr,
          {.subject = {.common_name = "system:node:" + name, .organizations = {"system:nodes"}},
           .sans = {.uri = {"spiffe://edgemesh.local/node/" + name}, .dns = {name}},
           .not_before = std::time(nullptr) - 60,
           .not_after = std::time(nullptr) + 86400});
      if (!der) return stop(der.error().message);
      nodes_.push_back(std::make_unique<SimNode>(fleet_, i, name, *der));
    }
    paced_ = nodes_.size();
    state(seconds_now() - begun);
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void stop(const std::string& why) {
    std::fprintf(stderr, "hub_load: %s\n", why.c_str());
    quit_ = true;
  }

  void connect(std::istringstream& words) {
    double limit = 60;
    words >> rate_ >> limit;
    paced_ = 0;
    pace_begun_ = seconds_now();
    fleet_.joins.clear();
    const double took = until(limit, [this] { return fleet_.synced >= nodes_.size(); });
    fmt::print(
        R"({{"seconds":{:.3f},"synced":{},"failed":{},"turn":{:.3f},"p50":{:.4f},"p99":{:.4f},"error":"{}"}})"
        "\n",
        took, fleet_.synced, fleet_.failed, std::exchange(longest_turn_, 0),
        percentile(fleet_.joins, 50), percentile(fleet_.joins, 99), clean(fleet_.last_error));
  }

  void wait(std::istringstream& words, bool up) {
    size_t count = 0;
    double limit = 60;
    words >> count >> limit;
    state(until(limit, [&] { return up ? fleet_.synced >= count : fleet_.synced <= count; }));
  }

  void marked(std::istringstream& words) {
    size_t count = 0;
    double limit = 10;
    words >> count >> limit;
    until(limit, [&] { return fleet_.marked.size() >= count; });
    std::vector<double> at = fleet_.marked;
    fmt::print(R"({{"count":{},"first":{:.6f},"p50":{:.6f},"p99":{:.6f},"last":{:.6f}}})"
               "\n",
               at.size(), percentile(at, 0), percentile(at, 50), percentile(at, 99),
               percentile(at, 100));
  }

  void misbehave(const std::string& how, std::istringstream& words) {
    size_t first = 0, count = 0;
    int on = 1;
    words >> first >> count >> on;
    for (size_t i = first; i < std::min(first + count, nodes_.size()); ++i) {
      if (how == "slow") nodes_[i]->stop_reading(on != 0);
      if (how == "silent") nodes_[i]->silence(on != 0);
      if (how == "flood") nodes_[i]->flood(on != 0);
    }
    state(0);
  }

  void query(std::istringstream& words) {
    size_t first = 0, count = 0, each = 0;
    double limit = 60;
    words >> first >> count >> each >> limit;
    fleet_.queries = fleet_.answers = 0;
    for (size_t i = first; i < first + count; ++i) nodes_.at(i)->query(each);
    const double took = until(limit, [&] { return fleet_.answers >= each * count; });
    fmt::print(R"({{"seconds":{:.3f},"sent":{},"answered":{},"strange":{}}})"
               "\n",
               took, fleet_.queries, fleet_.answers, fleet_.strange_answers);
  }

  void objects(std::istringstream& words) {
    size_t first = 0, count = 0, total = 0;
    double limit = 60;
    words >> first >> count >> total >> limit;
    size_t held = 0;
    const double took = until(limit, [&] {
      held = 0;
      for (size_t i = first; i < first + count; ++i) held += nodes_.at(i)->distinct_objects();
      return held >= total;
    });
    fmt::print(R"({{"seconds":{:.3f},"held":{},"confirmed":{}}})"
               "\n",
               took, held, fleet_.confirmed);
  }

  void trips(std::istringstream& words) {
    double limit = 5;
    words >> limit;
    fleet_.round_trips.clear();
    until(limit, [] { return false; });
    std::vector<double> trips = fleet_.round_trips;
    fmt::print(R"({{"count":{},"p50":{:.6f},"p99":{:.6f},"max":{:.6f}}})"
               "\n",
               trips.size(), percentile(trips, 50), percentile(trips, 99), percentile(trips, 100));
  }

  std::map<std::string, std::string> args_;
  Fleet fleet_;
  size_t count_ = 0;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  size_t next_ = 0, paced_ = 0;
  double rate_ = 0, pace_begun_ = 0, last_tick_ = 0, last_turn_ = seconds_now(), longest_turn_ = 0;
  std::string input_;
  bool quit_ = false;
};

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  edgemesh::bench::Load(edgemesh::bench::parse_args(argc, argv)).run();
  return 0;
}
