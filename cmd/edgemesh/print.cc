#include "cmd/edgemesh/print.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace edgemesh::cli {

namespace {

using nlohmann::json;

std::string text_of(const json& object, const char* key, const char* otherwise = "-") {
  auto it = object.find(key);
  if (it == object.end() || it->is_null()) return otherwise;
  if (it->is_string()) return it->get_ref<const std::string&>().empty() ? otherwise : it->get<std::string>();
  return it->dump();
}

int64_t number_of(const json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<int64_t>() : 0;
}

std::string bytes_text(int64_t n) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(n);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", n) : fmt::format("{:.1f} {}", value, units[unit]);
}

std::string rtt_text(int64_t us) {
  return us <= 0 ? "-" : fmt::format("{:.1f} ms", static_cast<double>(us) / 1000);
}

std::string ago_text(int64_t seconds) {
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 7200) return fmt::format("{} min", seconds / 60);
  if (seconds < 172800) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} d", seconds / 86400);
}

std::string channel_line(const json& channel) {
  std::string address = text_of(channel, "address");
  if (channel.value("connected", false))
    return fmt::format("connected to {} for {}, RTT {}", address, ago_text(number_of(channel, "sinceSeconds")),
                       rtt_text(number_of(channel, "rttUs")));
  return fmt::format("NOT connected to {}: {} (the node serves what it knew; trying again)", address,
                     text_of(channel, "reason", "not tried yet"));
}

}  // namespace

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += i + 1 == row.size() ? row[i] : fmt::format("{:{}}  ", row[i], widths[i]);
    out += line + "\n";
  }
  return out;
}

std::string status_text(const json& status) {
  std::string out;
  out += fmt::format("Node      {} (agent {}, up {})\n", text_of(status, "node"),
                     text_of(status, "version"), ago_text(number_of(status, "uptimeSeconds")));
  out += fmt::format("Channel   {}\n", channel_line(status.value("channel", json::object())));
  out += fmt::format("Capture   {}\n", text_of(status, "capture"));
  out += fmt::format("DNS       {}\n", text_of(status, "dns"));
  out += fmt::format("NAT       {}\n", text_of(status, "nat", "unknown until a peer was contacted"));
  out += fmt::format("Services  {} ({} endpoints)\n", number_of(status, "services"),
                     number_of(status, "endpoints"));
  json peers = status.value("peers", json::array());
  if (peers.empty()) return out + "Peers     none contacted yet\n";
  std::vector<std::vector<std::string>> rows{
      {"PEER", "PATH", "RTT", "SENT", "RECEIVED", "STREAMS", "NAT", "NOTE"}};
  for (const auto& peer : peers)
    rows.push_back({text_of(peer, "node"), text_of(peer, "path"), rtt_text(number_of(peer, "rttUs")),
                    bytes_text(number_of(peer, "txBytes")), bytes_text(number_of(peer, "rxBytes")),
                    std::to_string(number_of(peer, "streams")), text_of(peer, "nat"),
                    text_of(peer, "reason", "")});
  return out + "\n" + table(rows);
}

std::string netcheck_text(const json& result) {
  std::string out;
  auto list = [&](const char* key) {
    std::string joined;
    for (const auto& item : result.value(key, json::array()))
      if (item.is_string()) joined += (joined.empty() ? "" : ", ") + item.get<std::string>();
    return joined.empty() ? std::string("none") : joined;
  };
  auto yes_no = [&](const char* key) { return result.value(key, false) ? "yes" : "no"; };
  out += fmt::format("Local addresses      {}\n", list("localAddresses"));
  out += fmt::format("Seen from outside    {}\n", list("reflexiveAddresses"));
  out += fmt::format("NAT                  {}\n", text_of(result, "nat"));
  out += fmt::format("UDP works            {}\n", yes_no("udp"));
  out += fmt::format("Relay over UDP       {}\n", yes_no("relayUdp"));
  out += fmt::format("Relay over TCP       {}\n", yes_no("relayTcp"));
  out += fmt::format("Took                 {} ms\n", number_of(result, "elapsedMs"));
  std::string note = text_of(result, "note", "");
  if (!note.empty()) out += fmt::format("Note                 {}\n", note);
  return out;
}

std::string path_text(const json& path) {
  std::string out;
  out += fmt::format("Node      {}\n", text_of(path, "node"));
  out += fmt::format("Path      {}\n", text_of(path, "path"));
  out += fmt::format("RTT       {}\n", rtt_text(number_of(path, "rttUs")));
  out += fmt::format("Local     {}\n", text_of(path, "local"));
  out += fmt::format("Remote    {}\n", text_of(path, "remote"));
  std::string reason = text_of(path, "reason", "");
  if (!reason.empty()) out += fmt::format("Reason    {}\n", reason);
  return out;
}

}  // namespace edgemesh::cli
