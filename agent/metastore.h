// Metastore: what the node must know when the cloud is away, in SQLite (KubeEdge's table meta: key,
// type, value). Keys: "<ns>/service/<name>", "<ns>/endpointslice/<name>", "peer/<node>", "mesh/config",
// "mesh/sync". A file that SQLite cannot read is set aside and a new one begun: the cloud fills it.
// Threads: the loop given; writes run on the store thread and are committed in groups.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/loop.h"
#include "core/store/writer.h"

namespace edgemesh::agent {

class Metastore {
 public:
  static Result<std::unique_ptr<Metastore>> open(io::Loop& loop, const std::string& path);

  struct Row {
    std::string key, type, value;
  };
  // All rows as they were when the store was opened; the memory is given away.
  std::vector<Row> take_loaded() { return std::move(loaded_); }

  void put(std::string key, std::string type, std::string value);
  void remove(std::string key);
  // Runs on the loop when everything before it is durable.
  void flush(io::Task done);

 private:
  Metastore() = default;
  void submit(store::Writer::Work work);
  std::vector<Row> loaded_;
  std::unique_ptr<store::Writer> writer_;
};

}  // namespace edgemesh::agent
