#include "cloud/rendezvous.h"

#include <nlohmann/json.hpp>

#include "cloud/ca.h"

namespace edgemesh::cloud {
namespace {

constexpr std::string_view kPeer = "peer/";

channel::Message blank() {
  channel::Message out;
  out.id = channel::new_id();
  out.timestamp_ms = channel::now_ms();
  out.source = "mesh";
  out.group = "mesh";
  return out;
}

}  // namespace

Rendezvous::Rendezvous(io::Loop& loop, NodeLink& link, RendezvousOptions options,
                       obs::Registry& registry)
    : loop_(loop),
      link_(link),
      options_(options),
      senders_(options.sender_rate),
      receivers_(options.receiver_rate),
      errors_(Rate{.per_second = 20, .burst = 50}),
      passed_(registry.counter("edgemesh_rendezvous_passed_total", "Signals passed on.")),
      undeliverable_(registry.counter("edgemesh_rendezvous_undeliverable_total",
                                      "Signals that were not passed on.")) {}

std::string Rendezvous::refusal(const std::string& from, const std::string& to,
                                const channel::Message& message) {
  if (!check_node_name(to)) return "the resource must be peer/<node>";
  if (to == from) return "a node does not signal itself";
  if (message.content.size() > options_.max_bytes) {
    return fmt::format("larger than {} bytes", options_.max_bytes);
  }
  if (!senders_.take(from, loop_.now())) return "too many signals; slow down";
  return {};
}

void Rendezvous::on_signal(const std::string& from, const channel::Message& message) {
  const bool shaped = message.resource.starts_with(kPeer);
  const std::string to = shaped ? message.resource.substr(kPeer.size()) : std::string();
  if (const std::string why = refusal(from, to, message); !why.empty())
    return refuse(from, to, message.id, why);
  if (!link_.connected(to) && elsewhere_) {
    return elsewhere_(from, to, message.content,
                      [this, alive = alive_, from, to, id = message.id](Result<> passed) {
                        if (*alive && !passed) refuse(from, to, id, passed.error().message);
                      });
  }
  if (auto delivered = deliver(from, to, message.content); !delivered)
    refuse(from, to, message.id, delivered.error().message);
}

Result<> Rendezvous::deliver(const std::string& from, const std::string& to,
                             const std::string& content) {
  EM_TRY_VOID(check_node_name(from));
  EM_TRY_VOID(check_node_name(to));
  if (!link_.connected(to)) return fail(ErrorCode::kNotFound, "node {} is not connected", to);
  if (content.size() > options_.max_bytes)
    return fail(ErrorCode::kInvalidArgument, "larger than {} bytes", options_.max_bytes);
  if (!receivers_.take(to, loop_.now()))
    return fail(ErrorCode::kResourceExhausted, "node {} gets too many signals", to);
  channel::Message out = blank();
  out.operation = "signal";
  out.resource = std::string(kPeer) + from;
  out.content = content;
  if (!link_.send(to, out)) return fail(ErrorCode::kNotFound, "node {} is not connected", to);
  passed_.add();
  return {};
}

void Rendezvous::refuse(const std::string& from, const std::string& to, const std::string& parent,
                        std::string_view why) {
  undeliverable_.add();
  if (!errors_.take(from, loop_.now())) return;
  channel::Message out = blank();
  out.parent_id = parent;
  out.operation = "error";
  out.resource = std::string(kPeer) + (check_node_name(to) ? to : std::string("invalid"));
  out.content = nlohmann::json{{"reason", why}}.dump();
  link_.send(from, out);
}

}  // namespace edgemesh::cloud
