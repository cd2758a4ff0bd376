// Texts that a configuration took from files of their own: certificates, keys, JWKS.
#include <fstream>
#include <functional>
#include <optional>
#include <set>

#include "proxy/model/config.h"
#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

namespace {

// Told of each text and the file that it is from.
using Visit = std::function<void(std::string& text, const std::string& file)>;

void each_text(TlsOrigination& tls, const Visit& visit) {
  visit(tls.ca_pem, tls.ca_file);
  visit(tls.cert_pem, tls.cert_file);
  visit(tls.key_pem, tls.key_file);
}

void each_text(TlsTermination& tls, const Visit& visit) {
  visit(tls.cert_pem, tls.cert_file);
  visit(tls.key_pem, tls.key_file);
  visit(tls.ca_pem, tls.ca_file);
  for (auto& certificate : tls.more) {
    visit(certificate.cert_pem, certificate.cert_file);
    visit(certificate.key_pem, certificate.key_file);
  }
}

void each_text(Jwt& jwt, const Visit& visit) {
  for (auto& provider : jwt.providers) visit(provider.jwks, provider.jwks_file);
}

// The part with its files read anew; the same object when nothing in them changed.
class Reread {
 public:
  template <class T>
  Part<T> operator()(const Part<T>& part) {
    if (part == nullptr) return part;
    auto fresh = std::make_shared<T>(*part);
    bool changed = false;
    each_text(*fresh, [&](std::string& text, const std::string& file) {
      if (file.empty()) return;
      files_.insert(file);
      auto now = read_file(file);
      if (!now) {
        if (!error_) error_ = std::move(now.error());
        return;
      }
      changed |= text != *now;
      text = std::move(*now);
    });
    return changed ? Part<T>(std::move(fresh)) : part;
  }
  std::set<std::string>& files() { return files_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  std::set<std::string> files_;
  std::optional<Error> error_;
};

FilterChainPtr reread_chain(const FilterChainPtr& chain, Reread& reread) {
  const auto* http = std::get_if<HttpChain>(&chain->network);
  const auto tls = reread(chain->tls);
  const auto jwt = http != nullptr ? reread(http->jwt) : Part<Jwt>();
  if (tls.get() == chain->tls.get() && (http == nullptr || jwt.get() == http->jwt.get()))
    return chain;
  auto out = std::make_shared<FilterChain>(*chain);
  out->tls = tls;
  if (http != nullptr) std::get<HttpChain>(out->network).jwt = jwt;
  return out;
}

ListenerPtr reread_listener(const ListenerPtr& listener, Reread& reread) {
  std::shared_ptr<Listener> out;
  const auto change = [&](const FilterChainPtr& chain, auto&& place) {
    if (chain == nullptr) return;
    const auto fresh = reread_chain(chain, reread);
    if (fresh == chain) return;
    if (out == nullptr) out = std::make_shared<Listener>(*listener);
    place(*out) = fresh;
  };
  for (size_t i = 0; i < listener->chains.size(); ++i)
    change(listener->chains[i], [i](Listener& l) -> FilterChainPtr& { return l.chains[i]; });
  change(listener->default_chain, [](Listener& l) -> FilterChainPtr& { return l.default_chain; });
  return out != nullptr ? out : listener;
}

}  // namespace

Result<ConfigFiles> read_files_again(const Config& config) {
  ConfigFiles out;
  Reread reread;
  auto fresh = std::make_shared<Config>(config);
  bool changed = false;
  for (auto& [name, cluster] : fresh->clusters) {
    const auto tls = reread(cluster->tls);
    if (tls.get() == cluster->tls.get()) continue;
    auto copy = std::make_shared<Cluster>(*cluster);
    copy->tls = tls;
    cluster = std::move(copy);
    changed = true;
  }
  for (auto& [name, listener] : fresh->listeners) {
    const auto again = reread_listener(listener, reread);
    changed |= again != listener;
    listener = again;
  }
  if (reread.error()) return fail(*reread.error());
  out.files.assign(reread.files().begin(), reread.files().end());
  if (changed) out.changed = std::move(fresh);
  return out;
}

}  // namespace edgemesh::proxy::model
