"""Lets an agent with a certificate of its own choice speak to the cloud as another node.

    hub_relay.py PORT SERVER_CERT SERVER_KEY CLOUD_HOST CLOUD_PORT CERT KEY NAME REAL_NAME

Ends the agent's TLS on 127.0.0.1:PORT whatever certificate it has, and begins one to the cloud with CERT.
In the WebSocket request NAME becomes REAL_NAME, a name of the same length.
"""

import asyncio
import ssl
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


def contexts(server_cert, server_key, cert, key):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_cert, server_key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.load_cert_chain(cert, key)
    for context in (server, client):
        context.set_alpn_protocols(["http/1.1"])
    return server, client


async def main(port, server_cert, server_key, host, cloud_port, cert, key, name, real_name):
    server, client = contexts(server_cert, server_key, cert, key)

    async def relay(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        cloud_reader, cloud_writer = await asyncio.open_connection(host, int(cloud_port), ssl=client)
        cloud_writer.write(head.replace(name.encode(), real_name.encode()))
        await asyncio.gather(pump(reader, cloud_writer), pump(cloud_reader, writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", int(port), ssl=server)
    print("ready", flush=True)
    async with listener:
        await listener.serve_forever()


asyncio.run(main(*sys.argv[1:]))
