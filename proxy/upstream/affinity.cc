#include "proxy/upstream/affinity.h"

namespace edgemesh::proxy {

Host* AffinityTable::find(const IpAddr& client, TimePoint now) const {
  if (entries_.empty()) return nullptr;
  const size_t first = set_of(client);
  for (size_t i = first; i < first + kWays; ++i)
    if (entries_[i].host != nullptr && entries_[i].client == client)
      return entries_[i].until > now ? entries_[i].host : nullptr;
  return nullptr;
}

bool AffinityTable::put(const IpAddr& client, Host& host, TimePoint until, TimePoint now,
                        bool evict) {
  const size_t first = set_of(client);
  Entry* free = nullptr;
  Entry* oldest = &entries_[first];
  for (size_t i = first; i < first + kWays; ++i) {
    Entry& entry = entries_[i];
    if (entry.host != nullptr && entry.client == client) {
      entry = {client, &host, until};
      return true;
    }
    if (entry.host == nullptr || entry.until <= now) free = &entry;
    if (entry.until < oldest->until) oldest = &entry;
  }
  if (free == nullptr && !evict) return false;
  *(free != nullptr ? free : oldest) = {client, &host, until};
  return true;
}

void AffinityTable::remember(const IpAddr& client, Host& host, TimePoint until, TimePoint now) {
  if (entries_.empty()) entries_.resize(kFirstSize);
  while (!put(client, host, until, now, entries_.size() >= kMaxSize)) {
    std::vector<Entry> before(entries_.size() * 4);
    before.swap(entries_);
    for (const Entry& entry : before)
      if (entry.host != nullptr && entry.until > now)
        put(entry.client, *entry.host, entry.until, now, true);
  }
}

void AffinityTable::forget(const Host& host) {
  for (Entry& entry : entries_)
    if (entry.host == &host) entry = {};
}

}  // namespace edgemesh::proxy
