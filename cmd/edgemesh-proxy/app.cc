#include "cmd/edgemesh-proxy/app.h"

#include <malloc.h>

#include "core/base/log.h"
#include "proxy/telemetry/response_flags.h"

namespace edgemesh::cmd {

Result<std::unique_ptr<ProxyApp>> ProxyApp::create(io::Loop& loop, const ProxyFlags& flags,
                                                   proxy::InheritedSockets& inherited) {
  std::unique_ptr<ProxyApp> app(new ProxyApp(loop, flags));
  EM_TRY(app->resolver_, io::Resolver::create(loop, {}));
  proxy::ProxyOptions threads;
  threads.workers = flags.workers;
  threads.l4.node = flags.node;
  EM_TRY(app->threads_, proxy::Proxy::create(loop, threads, app->registry_));
  EM_TRY(auto config, proxy::model::load_config(flags.config));
  proxy::TelemetryOptions telemetry;
  telemetry.workers = app->threads_->worker_loops().size();
  telemetry.spec = config->telemetry;
  telemetry.node = flags.node;
  telemetry.flags_text = proxy::flags_text;
  EM_TRY(app->telemetry_, proxy::Telemetry::make(loop, std::move(telemetry)));
  app->registry_.on_text([t = app->telemetry_.get()](std::string& out) { t->append_text(out); });
  proxy::L7ProxyOptions options;
  options.telemetry = app->telemetry_.get();
  options.place.node = flags.node;
  options.place.locality.zone = flags.zone;
  options.connector.node = flags.node;
  options.lookup = proxy::lookup_by(*app->resolver_);
  options.drain_timeout = std::chrono::seconds(flags.drain_seconds);
  options.metrics = &app->registry_;
  options.inherited = &inherited;
  EM_TRY(app->l7_, proxy::L7Proxy::create(loop, app->threads_->worker_loops(), options));
  app->registry_.on_text([l7 = app->l7_.get()](std::string& out) { l7->append_metrics(out); });
  EM_TRY_VOID(app->l7_->apply(std::move(config)));
  app->file_ = std::make_unique<proxy::ConfigFile>(loop, *app->l7_, flags.config, app->registry_);
  // What reading a large file left in the heap.
  malloc_trim(0);
  app->l7_->forget_inherited();
  EM_TRY_VOID(app->open_admin(inherited));
  app->threads_->start();
  for (const auto& [name, addr] : app->l7_->listen_addrs())
    EM_LOG(kInfo, "proxy", "{} listens on {}", name, addr.to_string());
  return app;
}

std::string ProxyApp::admin_key() const {
  return "admin " + flags_.admin;
}

Result<> ProxyApp::open_admin(proxy::InheritedSockets& inherited) {
  if (flags_.admin.empty()) return {};
  auto listen = SockAddr::parse(flags_.admin);
  if (!listen)
    return fail(ErrorCode::kInvalidArgument, "--admin: '{}' is no address (want IP:PORT)",
                flags_.admin);
  std::vector<io::Fd> socket = inherited.take(admin_key());
  EM_TRY(admin_, make_admin(loop_, *listen, registry_, sources(),
                            socket.empty() ? io::Fd() : std::move(socket.front())));
  return {};
}

ProxyApp::~ProxyApp() {
  admin_.reset();
  file_.reset();
  if (l7_) l7_->stop();
  if (threads_) threads_->stop();
}

void ProxyApp::reload(proxy::ConfigFile::Done done) {
  telemetry_->reopen_logs();
  file_->reload(std::move(done));
}

AdminSources ProxyApp::sources() {
  AdminSources out;
  out.l7 = l7_.get();
  out.telemetry = telemetry_.get();
  out.draining = [this] { return draining_; };
  out.drain = [this] { shut_down(); };
  out.reload = [this](proxy::ConfigFile::Done done) { reload(std::move(done)); };
  return out;
}

std::vector<std::pair<std::string, int>> ProxyApp::listening_sockets() const {
  auto out = l7_->listening_sockets();
  if (admin_ != nullptr) out.emplace_back(admin_key(), admin_->listening_fd());
  return out;
}

void ProxyApp::hand_over() {
  if (admin_ != nullptr) admin_->stop_accepting();
  shut_down(proxy::Drain::kPatient);
}

void ProxyApp::shut_down(proxy::Drain how) {
  if (std::exchange(draining_, true)) return loop_.stop();
  EM_LOG(kInfo, "proxy", "draining");
  l7_->drain([this] { loop_.stop(); }, how);
}

}  // namespace edgemesh::cmd
