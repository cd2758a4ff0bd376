#!/usr/bin/python3
"""WebSockets of the distribution's library: echo.
  ws_app.py serve NAME PORT
  ws_app.py check HOST PORT    prints "ok" with what was done, or ends with an error
"""

import asyncio
import sys

import websockets

LIMIT = 4 << 20


async def echo(socket, path):
    if path.startswith("/close/"):
        await socket.close(int(path.split("/")[2]), "as asked")
        return
    try:
        async for message in socket:
            if path == "/pieces":  # answered in fragments
                await socket.send([message[i:i + 1000] for i in range(0, len(message), 1000)])
            else:
                await socket.send(message)
    except websockets.ConnectionClosed:
        pass
    print("closed", socket.close_code, socket.close_reason, flush=True)


async def serve(port):
    async with websockets.serve(echo, "0.0.0.0", port, max_size=LIMIT, subprotocols=["lab.v1"]):
        print("ready", flush=True)
        await asyncio.Future()


async def messages(base):
    async with websockets.connect(base + "/", max_size=LIMIT, subprotocols=["other", "lab.v1"]) as socket:
        assert socket.subprotocol == "lab.v1", socket.subprotocol
        for message in ("", "text \u00fc", b"\x00\xff" * 500_000, "x" * 1_000_000):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), 20) == message
        await socket.send([b"f" * 500] * 20)  # fragments
        assert await asyncio.wait_for(socket.recv(), 20) == b"f" * 10_000
        await asyncio.wait_for(await socket.ping(b"are you there"), 20)
        await socket.close(4001, "done")
        assert socket.close_code == 4001, socket.close_code
    async with websockets.connect(base + "/pieces", max_size=LIMIT) as socket:
        await socket.send("p" * 50_500)
        assert await asyncio.wait_for(socket.recv(), 20) == "p" * 50_500
    return "messages, fragments, ping"


async def closes(base):
    for code in (1000, 1001, 1008, 1011, 3000, 4999):
        async with websockets.connect(f"{base}/close/{code}") as socket:
            await asyncio.wait_for(socket.wait_closed(), 20)
            assert (socket.close_code, socket.close_reason) == (code, "as asked"), (code, socket.close_code)
    return "6 close codes"


async def many(base):
    async def one(i):
        async with websockets.connect(base + "/") as socket:
            for j in range(20):
                await socket.send(f"{i} {j}")
                assert await asyncio.wait_for(socket.recv(), 20) == f"{i} {j}"
    await asyncio.gather(*[one(i) for i in range(20)])
    return "20 at once"


async def check(host, port):
    base = f"ws://{host}:{port}"
    print("ok", "; ".join([await messages(base), await closes(base), await many(base)]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[3])))
    else:
        asyncio.run(check(sys.argv[2], sys.argv[3]))
