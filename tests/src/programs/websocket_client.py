"""WebSocket client: sessions with text, binary, fragments, pings, compression and without."""

import asyncio
import sys

import websockets


async def session(path, messages, **options):
    uri = f"ws://127.0.0.1:{sys.argv[1]}{path}"
    async with websockets.connect(uri, ping_interval=None, **options) as socket:
        for message in messages:
            await socket.send(message)
            if message == "bye":
                await socket.wait_closed()
                break
            want = message if isinstance(message, (str, bytes)) else "".join(message)
            assert await socket.recv() == want
            await (await socket.ping())


async def main():
    await session("/plain?a=1", ["hello", b"\0" * 200, "x" * 70_000, ["in ", "three ", "parts"]], compression=None)
    await session("/deflated", ["hello " * 100, b"bytes" * 100])
    await session("/bye", ["hello", "bye"])
    await session("/none", [])


asyncio.run(main())
print("done")
