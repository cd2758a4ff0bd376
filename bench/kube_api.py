"""A connection to the cloud's Kubernetes API from inside a network namespace, with the administrator's certificate."""

import base64
import ctypes
import http.client
import json
import os
import re
import ssl
import time

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(path):
    with open(path, "rb") as f:
        if _libc.setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


def credentials(cloud):
    """Paths of certificate, key and CA out of admin.kubeconfig."""
    with open(cloud.kubeconfig, encoding="utf-8") as f:
        config = f.read()
    paths = []
    for field in ("client-certificate-data", "client-key-data", "certificate-authority-data"):
        found = re.search(rf'"?{field}"?\s*:\s*"?([A-Za-z0-9+/=]+)', config)
        paths.append(cloud.lab.path(f"{field}.pem"))
        with open(paths[-1], "wb") as f:
            f.write(base64.b64decode(found.group(1)))
        os.chmod(paths[-1], 0o600)
    return paths


class Api:
    """One kept connection. Only the thread that made the socket was in the namespace, and only for that."""

    def __init__(self, cloud, host="127.0.0.1", port=6443):
        cert, key, ca = credentials(cloud)
        self.context = ssl.create_default_context(cafile=ca)
        self.context.check_hostname = False
        self.context.load_cert_chain(cert, key)
        self.cloud, self.host, self.port = cloud, host, port
        self.connection, self.used = None, 0.0

    def _connect(self):
        self.connection = http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=60)
        with open("/proc/thread-self/ns/net", "rb") as home:
            _enter(self.cloud.lab.cloud_ns.path)
            try:
                self.connection.connect()
            finally:
                _libc.setns(home.fileno(), CLONE_NEWNET)

    def request(self, method, path, body=None, kind="application/json"):
        """(status, object)"""
        # The server ends a connection that was idle for long.
        if self.connection is None or time.monotonic() - self.used > 20:
            self._connect()
        self.used = time.monotonic()
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind})
            response = self.connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            raise
        return response.status, json.loads(text) if text else None

    def must(self, method, path, body=None, kind="application/json"):
        status, answer = self.request(method, path, body, kind)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {str(answer)[:300]}")
        return answer

    def wait(self, limit=20):
        """Until the API answers; seconds that it took."""
        begun = time.monotonic()
        while True:
            try:
                if self.request("GET", "/version")[0] == 200:
                    return time.monotonic() - begun
            except OSError:
                pass
            if time.monotonic() - begun > limit:
                raise RuntimeError("the API does not answer")
            time.sleep(0.05)
