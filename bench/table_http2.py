"""HTTP/2 without TLS in front, HTTP/1 behind: 16 connections with 16 streams each."""

from http_lab import HttpLab, PEERS, add, cpu_ratio

WORK = "HTTP/2 cleartext, 16 x 16"


def run(table, runs):
    with HttpLab() as lab:
        variants = lab.variants(table, ("edgemesh",) + PEERS, h2=True)
        for _ in range(runs):
            for variant in variants:
                add(table, WORK, variant, lab.h2load(variant))
    table.goal("requests/s over the best peer's", 1.2, table.ratio(WORK, "edgemesh", PEERS), True)
    table.goal("CPU a request over the best peer's", 1.0, cpu_ratio(table, WORK), False)
