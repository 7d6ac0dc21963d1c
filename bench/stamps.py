"""An upstream that streams events, each of which tells when it was sent.

It runs as a process of its own: ``python -m bench.stamps``. The first line of output is the port.
The clock is one for all processes of a machine.
"""

import time

import trio

EVENTS = 50
PAUSE_SECONDS = 0.02
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"connection: keep-alive\r\n\r\n"
)
# As long as a piece of a chat completion.
_PADDING = b"x" * 180


async def _serve(stream: trio.SocketStream) -> None:
    buffered = b""
    try:
        while True:
            while b"\r\n\r\n" not in buffered:
                data = await stream.receive_some()
                if not data:
                    return
                buffered += data
            buffered = buffered.partition(b"\r\n\r\n")[2]
            await stream.send_all(_HEAD)
            for _ in range(EVENTS):
                event = b"data: %d %b\n\n" % (time.monotonic_ns(), _PADDING)
                await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
                await trio.sleep(PAUSE_SECONDS)
            await stream.send_all(b"0\r\n\r\n")
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def _main() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(_serve, [listener])


if __name__ == "__main__":
    trio.run(_main)
