#!/usr/bin/env python3
"""Checks rules that the compiler does not: see CONTRIBUTING.md, "Rules that are checked".

  - an #include goes only down the layers;
  - a third-party library is used in the folder that owns it, and in no public header;
  - constructs that this code does without;
  - files stay short enough to read.
Prints one line a finding, `file:line: what`; exit code 1 when there is one.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Lower numbers are lower layers. Folders of one layer do not include each other, but for SAME_LAYER.
LAYERS = {
    "core/base": 0,
    "core/io": 1, "core/store": 1, "core/config": 1, "kube": 1, "proto": 1,
    "core/tls": 2, "core/obs": 2,
    "core/http": 3,
    "core/bus": 4, "core/channel": 4, "core/grpc": 4, "discovery": 4, "p2p": 4,
    "proxy": 5, "agent": 5, "cloud": 5,
    "istio-integration": 6,
    "cmd": 7, "bench": 8, "tests": 8,
}
# Beside the order above: (from, to).
SAME_LAYER = {
    ("core/store", "core/io"),  # the writer thread reports to a loop
    ("kube", "core/io"),        # watches and informers live on a loop
    ("core/channel", "core/bus"),  # the channel carries the bus's messages
}

# Include prefix -> the folders that may use it (tests and bench may use any).
OWNERS = {
    r"uv\.h": {"core/io"},
    r"ares": {"core/io", "discovery"},
    r"openssl/ssl": {"core/tls"},
    r"openssl/sha\.h": {"core/tls", "core/http"},  # the WebSocket handshake's digest
    r"openssl/": {"core/tls", "cloud"},  # cloud: the CA; keys and certificates, no connections
    r"nghttp2/": {"core/http", "core/grpc", "proxy"},
    r"re2/": {"proxy", "cloud"},  # cloud: patterns of custom resources
    r"(zlib|zstd)\.h": {"proxy"},
    r"wslay/": {"core/http"},
    r"sqlite3\.h": {"core/store"},
    r"yaml-cpp/": {"core/config"},
    r"libmnl/": {"proxy", "p2p", "core/io"},
    r"(nice/|glib|gio/|agent\.h$)": {"p2p"},
    r"(gnutls/|ngtcp2/|nghttp3/|intel-ipsec-mb)": {"p2p"},
    r"CLI/": {"cmd"},
    r"tl/": {"core/base"},
    r"(gtest|gmock)/": {"tests"},
}
# Third-party headers that a header of ours may include: (pattern, folder or None for all).
IN_HEADERS = [(r"nlohmann/json_fwd\.hpp", None), (r"nlohmann/json\.hpp", "kube"), (r"tl/", "core/base"),
              (r"fmt/core\.h", "core/base")]
THIRD_PARTY = r"(nlohmann/|fmt/|" + "|".join(OWNERS) + ")"

# What, where it is allowed all the same (path prefixes), and what to do.
BANNED = [
    (r"\bthrow\b(?!\(\))", ("tests/", "core/config/yaml.cc"), "errors are Result values, not exceptions"),
    (r"std::regex|<regex>", (), "std::regex is slow and recurses; write a small parser"),
    (r"\b(sleep_for|sleep_until|usleep|nanosleep)\b", ("bench/",), "wait for an event or a timer, not for time"),
    (r"#include <iostream>", (), "use core/base/log.h or fmt"),
    (r"\bjson::parse\([^,()]*\)", ("tests/",), "json::parse(text, nullptr, false) does not throw"),
    (r"\b(TODO|FIXME|XXX)\b", (), "finish it or open an issue"),
    (r"\b(system|popen)\(", (), "run programs with io::Process, without a shell"),
]
MAX_LINES = {".cc": 600, ".h": 350}


def folder_of(path):
    parts = path.split("/")
    if parts[0] == "core" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def strip(line, in_comment):
    """The line without comments and string contents; whether a block comment goes on."""
    if in_comment:
        end = line.find("*/")
        if end < 0:
            return "", True
        line = line[end + 2:]
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    line = re.sub(r"/\*.*?\*/", "", line)
    start = line.find("/*")
    comment = line.find("//")
    if start >= 0 and (comment < 0 or start < comment):
        return line[:start], True
    return (line[:comment] if comment >= 0 else line), False


def public_headers(paths):
    """Headers that another folder includes, and which; the others are their folder's own business."""
    public = {}
    for path in paths:
        folder = folder_of(path)
        if folder in ("tests", "bench"):
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            for included in re.findall(r'^\s*#include "([^"]+)"', f.read(), re.M):
                if folder_of(included) != folder:
                    public.setdefault(included, path)
    return public


def check_include(path, folder, included, quoted, public):
    own = folder_of(included) if quoted else None
    if own in LAYERS:
        if own == folder:
            return None
        if LAYERS[folder] < LAYERS[own]:
            return f"{folder} must not include {included}: {own} is a higher layer"
        if LAYERS[folder] == LAYERS[own] and (folder, own) not in SAME_LAYER and folder not in ("tests", "bench"):
            return f"{folder} must not include {included}: both are in the same layer"
        return None
    if not re.match(THIRD_PARTY, included):
        return None
    if path.endswith(".h") and folder not in ("tests", "bench"):
        if not any(re.match(p, included) and where in (None, folder) for p, where in IN_HEADERS):
            if path in public:
                return f"a header that {public[path]} includes must not include {included}"
    for pattern, owners in OWNERS.items():
        if re.match(pattern, included):  # the first that fits counts
            if folder not in owners and folder not in ("tests", "bench"):
                return f"{included} may be used in {' and '.join(sorted(owners))} only"
            return None
    return None


def check_file(path, public):
    findings = []
    folder = folder_of(path)
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        lines = f.read().splitlines()
    limit = MAX_LINES[os.path.splitext(path)[1]]
    if len(lines) > limit:
        findings.append((1, f"{len(lines)} lines: split it (the limit is {limit})"))
    in_comment = False
    for number, raw in enumerate(lines, 1):
        include = re.match(r'\s*#include\s+([<"])([^>"]+)[>"]', raw)
        if include:
            problem = check_include(path, folder, include.group(2), include.group(1) == '"', public)
            if problem:
                findings.append((number, problem))
        code, in_comment = strip(raw, in_comment)
        for pattern, allowed, advice in BANNED:
            text = raw if "TODO" in pattern else code
            if re.search(pattern, text) and not path.startswith(allowed or ("\0",)):
                findings.append((number, f"'{re.search(pattern, text).group(0)}': {advice}"))
        if path.endswith(".h") and folder != "tests" and re.search(r"\busing namespace\b", code):
            findings.append((number, "no 'using namespace' in a header"))
    if path.endswith(".h") and not any(line.strip() == "#pragma once" for line in lines):
        findings.append((1, "a header begins with #pragma once"))
    return findings


def sources():
    for top in sorted({f.split("/")[0] for f in LAYERS}):
        for directory, folders, names in os.walk(os.path.join(ROOT, top)):
            folders[:] = sorted(d for d in folders if d not in ("build", "corpus"))
            for name in sorted(names):
                if name.endswith((".cc", ".h")):
                    yield os.path.relpath(os.path.join(directory, name), ROOT)


def main():
    count = bad = 0
    paths = list(sources())
    public = public_headers(paths)
    for path in paths:
        count += 1
        for number, what in check_file(path, public):
            bad += 1
            print(f"{path}:{number}: {what}")
    print(f"layers and rules: {count} files, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
