"""Where the programs under test are. EDGEMESH_BUILD names a build folder; build/release without it."""

import os
import subprocess

from .proc import LabError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def build_dir():
    return os.path.join(ROOT, os.environ.get("EDGEMESH_BUILD", "build/release"))


def program(name):
    """The path of edgemesh, edgemesh-agent or edgemesh-cloud."""
    for folder in ("", "bin", f"cmd/{name}", "cmd"):
        path = os.path.join(build_dir(), folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise LabError(f"{name} is not built in {build_dir()}: run scripts/build")


def test_program(name):
    """The path of a program of tests/lab/apps, built when it is not there or old."""
    return _built("tests/lab", name)


def tool(name):
    """The path of a helper of bench/tools, built when it is not there or old."""
    return _built("bench", name)


def _built(folder, name):
    target = os.path.join(build_dir(), folder, name)
    if not os.environ.get("EDGEMESH_NO_BUILD") or not os.path.exists(target):
        if not os.path.exists(os.path.join(build_dir(), "build.ninja")):
            raise LabError(f"{build_dir()} is not configured: run scripts/build")
        done = subprocess.run(["ninja", "-C", build_dir(), "--quiet", name], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise LabError(f"building {name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return target
