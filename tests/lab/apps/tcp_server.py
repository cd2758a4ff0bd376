"""An application for the lab: a TCP server that does what the first line of a connection says.

    tcp_server.py NAME PORT [ADDRESS]
    HELLO           answers "hello from NAME", then closes
    ECHO            sends back what it gets until the end of the input
    SOURCE N SEED   sends N bytes of the pattern of SEED, then closes
    SINK            reads to the end, then answers "COUNT SHA256"
    LAST            reads to the end, then answers "after the end" (half-close)
    RESET           ends the connection with a reset
"""

import asyncio
import hashlib
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from pattern import chunks  # noqa: E402


async def sink(reader):
    digest, count = hashlib.sha256(), 0
    while data := await reader.read(1 << 18):
        digest.update(data)
        count += len(data)
    return f"{count} {digest.hexdigest()}\n".encode()


async def serve(name, reader, writer):
    words = (await reader.readline()).split() or [b""]
    if words[0] == b"HELLO":
        writer.write(f"hello from {name}\n".encode())
    elif words[0] == b"ECHO":
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    elif words[0] == b"SOURCE":
        for chunk in chunks(int(words[1]), int(words[2])):
            writer.write(chunk)
            await writer.drain()
    elif words[0] == b"SINK":
        writer.write(await sink(reader))
    elif words[0] == b"LAST":
        await reader.read(-1)
        writer.write(b"after the end\n")
    elif words[0] == b"RESET":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await writer.drain()


async def handle(name, reader, writer):
    try:
        await serve(name, reader, writer)
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        pass
    finally:
        writer.close()


async def main(name, port, address=None):
    server = await asyncio.start_server(lambda r, w: handle(name, r, w), address, port, backlog=4096, limit=1 << 20)
    print("ready", flush=True)
    await server.serve_forever()


try:
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4]))
except KeyboardInterrupt:
    pass
