#!/usr/bin/python3
"""gRPC of the distribution, without generated code: messages are bytes.
  grpc_app.py serve NAME PORT
  grpc_app.py check HOST:PORT    each kind of call; prints "ok" with what was done, or ends with an error
"""

import sys
import time
from concurrent import futures

import grpc

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}
WHO = "x-answered-by"


class Lab(grpc.GenericRpcHandler):
    """Echo (unary), Count (server streaming), Sum (client streaming), Chat (both), Fail, Slow; health."""

    def service(self, details):
        make = {"Echo": grpc.unary_unary_rpc_method_handler, "Fail": grpc.unary_unary_rpc_method_handler,
                "Slow": grpc.unary_unary_rpc_method_handler, "Check": grpc.unary_unary_rpc_method_handler,
                "Count": grpc.unary_stream_rpc_method_handler, "Sum": grpc.stream_unary_rpc_method_handler,
                "Chat": grpc.stream_stream_rpc_method_handler}
        service, name = details.method.rsplit("/", 1)
        if name not in make or (name == "Check") != (service == "/grpc.health.v1.Health"):
            return None  # UNIMPLEMENTED
        return make[name](getattr(self, name.lower()))

    def echo(self, request, context):
        fields = dict(context.invocation_metadata())
        context.send_initial_metadata(((WHO, sys.argv[2]),))
        context.set_trailing_metadata((("x-trailer-bin", fields.get("x-field-bin", b"")),
                                       ("x-size", str(len(request)))))
        return request

    def fail(self, request, context):
        context.abort(grpc.StatusCode[request.decode()], "asked for: \u00fc % \n")

    def slow(self, _request, context):
        end = time.monotonic() + 10
        while context.is_active() and time.monotonic() < end:
            time.sleep(0.01)
        print("slow call", "cancelled" if not context.is_active() else "ended", flush=True)
        return b""

    def check(self, _request, _context):
        return SERVING

    def count(self, request, _context):
        for i in range(int(request)):
            yield str(i).encode()

    def sum(self, requests, _context):
        return str(sum(len(r) for r in requests)).encode()

    def chat(self, requests, _context):
        yield b"hello"
        for request in requests:
            yield request.upper()


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), handlers=(Lab(),))
    assert server.add_insecure_port(f"0.0.0.0:{port}") == int(port)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


class Asks:
    def __init__(self, channel):
        self.channel = channel

    def unary(self, name, request=b"", timeout=20, **kw):
        return self.channel.unary_unary(name)(request, timeout=timeout, **kw)

    def unary_calls(self):
        for size in (0, 1, 100_000, 3_000_000):
            call = self.channel.unary_unary("/lab.Lab/Echo")
            metadata = (("x-field-bin", bytes(range(256))),)
            got, done = call.with_call(b"m" * size, timeout=20, metadata=metadata)
            trailers = dict(done.trailing_metadata())
            assert got == b"m" * size and trailers["x-size"] == str(size), (size, len(got), trailers)
            assert trailers["x-trailer-bin"] == bytes(range(256)), trailers
            assert dict(done.initial_metadata())[WHO], done.initial_metadata()
        assert self.unary("/grpc.health.v1.Health/Check") == SERVING
        return "4 echoes, health"

    def streams(self):
        assert [int(m) for m in self.channel.unary_stream("/lab.Lab/Count")(b"2000", timeout=20)] == list(range(2000))
        pieces = (b"p" * 10_000 for _ in range(100))
        assert self.channel.stream_unary("/lab.Lab/Sum")(pieces, timeout=20) == b"1000000"
        return "streams of 2000 and of 100"

    def chat(self):
        """Each message is sent when the answer to the one before is there: nothing may be held back."""
        import queue
        say = queue.Queue()
        answers = self.channel.stream_stream("/lab.Lab/Chat")(iter(say.get, None), timeout=20)
        assert next(answers) == b"hello"
        for i in range(50):
            say.put(f"word {i}".encode())
            assert next(answers) == f"WORD {i}".encode()
        say.put(None)
        assert list(answers) == []
        assert answers.code() == grpc.StatusCode.OK
        return "50 turns"

    def statuses(self):
        codes = [c for c in grpc.StatusCode if c != grpc.StatusCode.OK]
        for code in codes:
            error = status_of(lambda c=code: self.unary("/lab.Lab/Fail", c.name.encode()))
            assert error.code() == code and error.details() == "asked for: \u00fc % \n", (code, error)
        error = status_of(lambda: self.unary("/lab.Lab/Nothing"))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        return f"{len(codes)} statuses"

    def ends(self):
        start = time.monotonic()
        error = status_of(lambda: self.unary("/lab.Lab/Slow", timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        call = self.channel.unary_unary("/lab.Lab/Slow").future(b"", timeout=20)
        self.unary("/lab.Lab/Echo")
        call.cancel()
        assert time.monotonic() - start < 5
        return "deadline, cancel"


def check(target):
    with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),
                                                ("grpc.max_receive_message_length", 8 << 20))) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        asks = Asks(channel)
        print("ok", "; ".join(step() for step in (asks.unary_calls, asks.streams, asks.chat, asks.statuses, asks.ends)))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[3])
    else:
        check(sys.argv[2])
