// Resources that are served in another version than the one they are stored in: versions of a
// custom resource (only the name of the version differs: conversion None), and events.k8s.io, which
// names the fields of an event anew. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

// A body, or a patch, of the served version as one of the stored version.
void to_stored(const ResourceInfo& served, nlohmann::json* body);
// The text of a stored object, a List or a Status in the served version.
std::string to_served(const ResourceInfo& served, std::string text);
ObjectPtr to_served(const ResourceInfo& served, const ObjectPtr& object);

}  // namespace edgemesh::cloud
