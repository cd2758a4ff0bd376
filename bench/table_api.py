"""The embedded Kubernetes API over HTTPS: acknowledged writes, watch events, memory of many objects."""

import json

from kube_api import credentials
from lab.binaries import tool
from table_hub import Bench

WRITES, UPDATES = 50_000, 30_000
OBJECTS = 100_000
WATCHERS = 50
MANY = 256  # connections: a write is acknowledged when it is on the disk, together with all that wait


def load(lab, *args):
    cert, key, _ = credentials(lab.cloud)
    argv = [tool("api_load"), "--cert", cert, "--key", key, *map(str, args)]
    return json.loads(lab.cloud_ns.run(argv, timeout=300).stdout)


def memory(table):
    with Bench(100) as lab:
        process = lab.cloud.process
        table.add("cloud, empty", "PSS", process.memory_kib() / 1024, "MiB")
        before = process.private_kib()
        got = load(lab, "--count", OBJECTS)
        table.add(f"writes/s while {OBJECTS} are made", "32 connections", got["rate"], "")
        table.add(f"{OBJECTS} config maps of 1 KB", "growth", (process.private_kib() - before) / 1024, "MiB")
        table.add(f"{OBJECTS} config maps of 1 KB", "PSS of the process", process.memory_kib() / 1024, "MiB")


def run(table, runs):
    for _ in range(runs):
        with Bench(100) as lab:
            for writers in (1, 32, MANY):
                got = load(lab, "--count", WRITES if writers > 1 else WRITES // 20, "--writers", writers, "--prefix", f"w{writers}")
                variant = f"{writers} connection{'s' if writers > 1 else ''}"
                table.add("acknowledged creates/s", variant, got["rate"], "")
                table.add("create p50", variant, got["p50"], "ms")
                table.add("create p99", variant, got["p99"], "ms")
            got = load(lab, "--count", UPDATES, "--update", 1, "--spread", 1000, "--prefix", "w32", "--writers", MANY)
            table.add("acknowledged updates/s", f"{MANY} connections", got["rate"], "")
        with Bench(100) as lab:
            load(lab, "--count", 1000)
            got = load(lab, "--count", UPDATES // 2, "--update", 1, "--spread", 1000, "--watchers", WATCHERS, "--writers", MANY)
            table.add("watch events/s", f"{WATCHERS} watchers", got["event_rate"], "")
            table.add("watch events lost", f"{WATCHERS} watchers", got["lost"], "")
    memory(table)
    table.goal("acknowledged writes/s", 10_000, table.value("acknowledged creates/s", f"{MANY} connections"), True)
    table.goal("watch events/s", 200_000, table.value("watch events/s", f"{WATCHERS} watchers"), True)
    table.goal("watch events lost", 0, table.value("watch events lost", f"{WATCHERS} watchers"), False)
    table.goal(f"{OBJECTS} objects, MB", 500, table.value(f"{OBJECTS} config maps of 1 KB", "growth") * 1.049, False)
