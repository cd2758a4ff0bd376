"""What the interoperability runs share: programs with their logs, the proxy with a configuration, cases."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, os.environ.get("EDGEMESH_BUILD", "build/release"))
PROXY = os.path.join(BUILD, "bin", "edgemesh-proxy")
NODE = os.path.join(HERE, "node")
NPM = os.environ.get("NODE_PATH", "")
DIR = tempfile.mkdtemp(prefix="edgemesh-interop-")
os.chmod(DIR, 0o755)
_programs = []
_used = set()


def path(name):
    return os.path.join(DIR, name)


def write(name, text):
    with open(path(name), "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path(name), 0o644)
    return path(name)


def port():
    """A port that is free now and given out once, below those that the kernel chooses by itself."""
    for number in range(20000 + os.getpid() % 2000 * 5, 32000):
        if number in _used:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", number))
            except OSError:
                continue
        _used.add(number)
        return number
    raise RuntimeError("no free port")


class Program:
    """A program in the background; its output is collected."""

    def __init__(self, argv, *, ready=None, wait_port=None, env=None):
        self.argv = [str(a) for a in argv]
        self.text = ""
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace",
                                        env={**os.environ, **(env or {})}, cwd=DIR)
        _programs.append(self)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            wait(lambda: ready in self.text, 15, self.describe)
        if wait_port:
            wait(lambda: listening(wait_port), 15, self.describe)

    def _read(self):
        for line in self.process.stdout:
            self.text += line

    def describe(self):
        return f"{' '.join(self.argv)} (exit {self.process.poll()}): {self.text[-1500:]}"

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self in _programs:
            _programs.remove(self)


def listening(number):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", number)) == 0


def wait(condition, seconds, describe=lambda: ""):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {describe()}")
        time.sleep(0.02)


def run(*argv, timeout=60, check=True, data=None):
    done = subprocess.run([str(a) for a in argv], capture_output=True, timeout=timeout, check=False, input=data)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}: {done.stdout[-600:]!r} "
                             f"{done.stderr[-600:]!r}")
    return done


def proxy(config, ports, workers=1):
    """Our proxy with that configuration; `ports` are those it listens on."""
    program = Program([PROXY, "--config", write(f"edgemesh-{ports[0]}.yaml", config), "--workers", workers,
                       "--admin", "", "--log-level", "warn"], wait_port=ports[0])
    for number in ports[1:]:
        wait(lambda n=number: listening(n), 10, program.describe)
    return program


def nginx(name, http, extra=""):
    """nginx whose http block is `http`."""
    home = path(f"nginx-{name}")
    os.makedirs(home, exist_ok=True)
    os.chmod(home, 0o777)
    temp = "".join(f"  {kind}_temp_path {home}/{kind};\n"
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    write(f"nginx-{name}/nginx.conf", f"worker_processes 1;\ndaemon off;\npid {home}/pid;\nerror_log {home}/error.log;\n"
          f"events {{ worker_connections 1000; }}\n{extra}\nhttp {{\n  access_log off;\n{temp}{http}\n}}\n")
    return Program(["nginx", "-c", f"{home}/nginx.conf", "-p", home])


def haproxy(name, sections):
    return Program(["haproxy", "-db", "-f", write(f"haproxy-{name}.cfg", sections)])


HAPROXY_DEFAULTS = """defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


def pki():
    """(ca, cert, key, client cert, client key) for localhost, 127.0.0.1 and a client."""
    ca, ca_key = path("ca.pem"), path("ca.key")
    if not os.path.exists(ca):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            ca_key, "-out", ca, "-days", "30", "-subj", "/CN=interop")
        for name in ("server", "client"):
            run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                path(name + ".key"), "-out", path(name + ".csr"), "-subj", f"/CN={name}")
            ext = write(name + ".ext", "subjectAltName=DNS:localhost,IP:127.0.0.1,"
                        f"URI:spiffe://interop/{name}\nextendedKeyUsage=serverAuth,clientAuth\n")
            run("openssl", "x509", "-req", "-in", path(name + ".csr"), "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                "-out", path(name + ".pem"), "-days", "30", "-extfile", ext)
        for name in os.listdir(DIR):
            if os.path.isfile(path(name)):
                os.chmod(path(name), 0o644)
    return ca, path("server.pem"), path("server.key"), path("client.pem"), path("client.key")


class Cases:
    def __init__(self, words):
        self.words, self.passed, self.failed = words, 0, []

    def check(self, name, function, *args):
        if self.words and not name.startswith("(") and not any(w in name for w in self.words):
            return
        begun = time.monotonic()
        try:
            said = function(*args)
        except Exception as error:  # a case may fail in any way; the others go on
            self.failed.append(name)
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"  FAILED  {name}: {type(error).__name__} {str(error)[:700]} ({where.name}:{where.lineno})", flush=True)
            return
        self.passed += 1
        print(f"  ok      {name} ({time.monotonic() - begun:.1f} s){': ' + str(said) if said else ''}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {len(self.failed)} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


@atexit.register
def _end():
    for program in list(_programs)[::-1]:
        program.stop()
    if not os.environ.get("EDGEMESH_KEEP"):
        shutil.rmtree(DIR, ignore_errors=True)
