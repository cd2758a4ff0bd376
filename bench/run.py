"""scripts/bench TABLE [--json] [--runs N]; see README.md here."""

import argparse
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Table  # noqa: E402
from lab.proc import LabError  # noqa: E402
from lab.topology import remove_left_over, setup_signals  # noqa: E402

TABLES = ("l4", "tunnel", "connect", "memory", "http1", "http2", "grpc", "tls", "udp", "mesh", "reload", "hub", "api", "agent", "podstart")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures side by side with peers.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--runs", type=int, default=None, help="rounds (at least 3 for a median; connect: 30)")
    arguments = parser.parse_args()
    setup_signals()
    remove_left_over()
    table = Table(arguments.table, arguments.json)
    runs = arguments.runs or (30 if arguments.table == "connect" else 3)
    try:
        importlib.import_module(f"table_{arguments.table}").run(table, runs)
    except LabError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    table.print(arguments.json)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
