"""TLS 1.3, P-256 certificate: HTTP/1 and HTTP/2 inside, and what a full handshake costs the proxy."""

import re

from http_lab import HttpLab, PEERS, SECONDS, add

KEPT, H2, HANDSHAKE = "HTTP/1 in TLS, 64 connections", "HTTP/2 in TLS, 16 x 16", "full handshake, CPU"


def handshakes(lab, variant):
    """CPU of the proxy a handshake without resumption; the client makes one after the other."""
    def parse(text):
        done = int(re.search(r"(\d+) connections in", text).group(1))
        return float(done), done, 0
    return lab.measure(variant, ["openssl", "s_time", "-new", "-time", SECONDS, "-connect", variant.address], parse)


def run(table, runs):
    with HttpLab() as lab:
        # nginx of Debian 12 says per socket whether HTTP/2 is spoken; with it, ALPN chooses.
        variants = lab.variants(table, ("edgemesh",) + PEERS, h2=True, tls=True)
        for _ in range(runs):
            for variant in variants:
                add(table, KEPT, variant, lab.wrk(variant, tls=True))
            for variant in variants:
                add(table, H2, variant, lab.h2load(variant, tls=True))
            for variant in variants:
                cost = handshakes(lab, variant).cpu_us
                table.add(HANDSHAKE, variant.name, cost, "us each")
                table.add("full handshakes a CPU second", variant.name, 1e6 / cost, "handshakes")
    table.goal("HTTP/1 requests/s over nginx's", 1.1, table.ratio(KEPT, "edgemesh", ("nginx",)), True)
    table.goal("HTTP/2 requests/s over nghttpx's", 1.25, table.ratio(H2, "edgemesh", ("nghttpx",)), True)
    table.goal("CPU a full handshake over nginx's", 1.0, table.ratio(HANDSHAKE, "edgemesh", ("nginx",)), False)
