"""User memory of an idle connection that has carried one request: HTTP/1 keep-alive and HTTP/2."""

import json

from harness import pinned
from http_lab import PEERS, HttpLab, lowest_ratio
from lab.binaries import tool

CONNECTIONS = 5_000
WORKS = {"idle HTTP/1 connection": [], "idle HTTP/2 connection": ["--h2"]}


def run(table):
    for work, options in WORKS.items():
        with HttpLab() as lab:
            for variant in lab.variants(table, ("edgemesh",) + PEERS, h2=bool(options)):
                out = lab.pod.run(pinned(1, [tool("http_load"), "--to", variant.address, "--idle", "--connections",
                                             CONNECTIONS, "--pid", variant.pid] + options), timeout=120, check=False)
                if out.returncode != 0:
                    table.log(f"  no row: {work} {variant.name}: {(out.stdout + out.stderr)[-300:]}")
                    continue
                table.add(work, variant.name, json.loads(out.stdout)["value"], "user bytes")


def goals(table):
    http1, http2 = WORKS
    table.goal("user bytes of an idle HTTP/1 connection", 1000, table.value(http1, "edgemesh"), False)
    table.goal("an idle HTTP/2 connection over the best peer's", 1.0, lowest_ratio(table, http2), False)
