"""What all tables share: rounds, medians, the JSON object, the text form."""

import json
import os
import platform
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as f:
        congestion = f.read().strip()
    with open("/proc/meminfo", encoding="ascii") as f:
        memory = int(f.readline().split()[1]) // (1 << 20)
    return (f"{os.cpu_count()} x {model}, {memory} GiB, Linux {platform.release()}, {congestion} by default, "
            f"load {os.getloadavg()[0]:.1f} at the start")


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True,
                          check=False)
    return done.stdout.strip()


def pinned(core, argv):
    return ["taskset", "-c", str(core), *map(str, argv)]


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, round(p / 100 * (len(values) - 1)))]


class Table:
    """Collects samples; a row's value is the median of its runs."""

    def __init__(self, name, quiet):
        self.name, self.quiet = name, quiet
        self.machine = machine()
        self.samples, self.units, self.fixed, self.goals = {}, {}, {}, []

    def log(self, text):
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def add(self, work, variant, value, unit):
        self.samples.setdefault((work, variant), []).append(float(value))
        self.units[(work, variant)] = unit
        self.log(f"  {work:28} {variant:28} {value:12.2f} {unit}")

    def add_percentile(self, work, variant, values, p, unit):
        """A row of its own kind: a percentile over all runs."""
        key = (f"{work} p{p}", variant)
        self.samples[key] = list(values)
        self.fixed[key] = percentile(values, p)
        self.units[key] = unit

    def value(self, work, variant):
        """The row's value, None when it was not measured."""
        key = (work, variant)
        if key in self.fixed:
            return self.fixed[key]
        return statistics.median(self.samples[key]) if self.samples.get(key) else None

    def goal(self, text, goal, got, at_least):
        """`got` must come from this run's rows; None: not measured, which counts as missed."""
        self.goals.append({"text": text, "goal": goal, "got": None if got is None else round(got, 3),
                           "at_least": at_least})

    def ratio(self, work, variant, others):
        """value(work, variant) over the best of the others."""
        mine = self.value(work, variant)
        rest = [v for v in (self.value(work, o) for o in others) if v]
        return mine / max(rest) if mine and rest else None

    def object(self):
        rows = [{"work": w, "variant": v, "value": round(self.value(w, v), 3), "unit": self.units[(w, v)],
                 "runs": len(self.samples[(w, v)])} for w, v in self.samples]
        return {"table": self.name, "machine": self.machine, "commit": commit(), "rows": rows, "goals": self.goals}

    def text(self):
        out = [f"{self.name} ({commit()})", self.machine, "",
               f"| {'work':28} | {'variant':28} | {'median':>12} | {'lowest - highest':>23} | unit |", "|---|---|---|---|---|"]
        for (work, variant), values in self.samples.items():
            span = f"{min(values):.1f} - {max(values):.1f}"
            out.append(f"| {work:28} | {variant:28} | {self.value(work, variant):12.1f} | {span:>23} | "
                       f"{self.units[(work, variant)]} |")
        out += ["", "| goal | wanted | got | |", "|---|---|---|---|"]
        for g in self.goals:
            met = g["got"] is not None and (g["got"] >= g["goal"] if g["at_least"] else g["got"] <= g["goal"])
            sign = "at least" if g["at_least"] else "at most"
            out.append(f"| {g['text']} | {sign} {g['goal']} | {g['got']} | {'met' if met else 'missed'} |")
        return "\n".join(out)

    def print(self, as_json):
        print(json.dumps(self.object(), indent=1) if as_json else self.text())
