#!/usr/bin/python3
"""An HTTP/1.1 server with keep-alive: http_server.py NAME PORT. "/" answers its name and the client's
port, "/bytes/N" N bytes, "/status/N" that status, "/headers" the request's fields, POST the body's length."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # noqa: N802
        parts = self.path.split("/")
        if parts[1] == "bytes":
            return self.answer(b"x" * int(parts[2]))
        if parts[1] == "status":
            return self.answer(b"", int(parts[2]))
        if parts[1] == "headers":
            return self.answer(str(self.headers).encode())
        return self.answer(f"{NAME} {self.client_address[1]}\n".encode())

    def do_POST(self):  # noqa: N802
        length = int(self.headers.get("Content-Length", 0))
        got = 0
        while got < length:
            piece = self.rfile.read(min(65536, length - got))
            if not piece:
                return
            got += len(piece)
        self.answer(f"{got}\n".encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
