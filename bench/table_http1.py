"""HTTP/1.1 through a reverse proxy: kept connections, a new connection each request, latency at half load."""

from http_lab import HttpLab, PEERS, add, cpu_ratio, lowest_ratio

KEPT, NEW, HALF = "keep-alive, 64 connections", "new connection each request", "at half load"
TOLD, ON, OFF = "telemetry, keep-alive, 64 connections", "telemetry_on", "telemetry_off"


def run(table, runs):
    with HttpLab() as lab:
        variants = lab.variants(table, ("edgemesh",) + PEERS)
        told = lab.variants(table, (OFF, ON))
        for _ in range(runs):
            for variant in told:
                add(table, TOLD, variant, lab.wrk(variant))
            for variant in variants:
                add(table, KEPT, variant, lab.wrk(variant))
            for variant in variants:
                add(table, NEW, variant, lab.wrk(variant, close=True))
            rate = max(table.samples[(KEPT, p)][-1] for p in PEERS if (KEPT, p) in table.samples) / 2
            for variant in variants:
                result = lab.open_loop(variant, rate)
                for p in ("p50", "p99", "p999"):
                    table.add(f"{HALF}, {p}", variant.name, result[f"{p}_us"], "us")
                if result["errors"]:
                    table.log(f"  {result['errors']} failed: {HALF} {variant.name}")
    table.goal("keep-alive requests/s over the best peer's", 1.3, table.ratio(KEPT, "edgemesh", PEERS), True)
    table.goal("CPU a request over the best peer's", 0.8, cpu_ratio(table, KEPT), False)
    table.goal("new connections over haproxy's", 1.0, table.ratio(NEW, "edgemesh", ("haproxy",)), True)
    table.goal("requests/s with all telemetry over none", 0.92, table.ratio(TOLD, ON, (OFF,)), True)
    for p in ("p50", "p99"):
        table.goal(f"{p} at half load over the best peer's", 1.0, lowest_ratio(table, f"{HALF}, {p}"), False)
