"""WebSocket server that echoes. Logs: the client's port, messages of both, the close code."""

import asyncio

import websockets


async def serve(socket, _path):
    received = sent = 0
    try:
        async for message in socket:
            received += 1
            if message == "bye":
                await socket.close(4000, "as asked")
                break
            await socket.send(message)
            sent += 1
    finally:
        await socket.wait_closed()
        print("log", socket.remote_address[1], received, sent, socket.close_code)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, ping_interval=None) as server:
        print("port", server.sockets[0].getsockname()[1])
        await asyncio.Future()


asyncio.run(main())
