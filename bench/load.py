"""A program that asks for one path again and again over some connections, or opens streams and listens to them.

``python -m bench.load --port N --path /api/images --connections 8 --seconds 3`` prints one line of JSON.
``python -m bench.load --port N --path /api/jobs/x/events --listen 200`` prints how many streams have begun, and
listens until its standard input ends.
"""

import argparse
import asyncio
import json
import sys
import time

ANSWER_SECONDS = 20.0
OPEN_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--token", default="")
    options = parser.parse_args()
    head = f"GET {options.path} HTTP/1.1\r\nHost: 127.0.0.1:{options.port}\r\n"
    if options.token:
        head += f"Authorization: Bearer {options.token}\r\n"
    request = f"{head}\r\n".encode()
    if options.listen:
        asyncio.run(listen(options.port, request, options.listen))
    else:
        print(json.dumps(asyncio.run(ask(options.port, request, options.connections, options.seconds))))


async def ask(port: int, request: bytes, connections: int, seconds: float) -> dict[str, object]:
    """Keep every connection busy for some seconds; return the seconds each answer took, and what went wrong."""
    stop_at = time.perf_counter() + seconds
    times: list[float] = []
    failures: list[str] = []

    async def keep_asking() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while (sent_at := time.perf_counter()) < stop_at:
                writer.write(request)
                status = await asyncio.wait_for(read_answer(reader), ANSWER_SECONDS)
                times.append(time.perf_counter() - sent_at)
                if status != 200:
                    failures.append(f"status {status}")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            failures.append(type(error).__name__)
        finally:
            writer.close()

    started_at = time.perf_counter()
    await asyncio.gather(*(keep_asking() for _ in range(connections)))
    return {"seconds": time.perf_counter() - started_at, "times": times, "failures": failures}


async def read_answer(reader: asyncio.StreamReader) -> int:
    """Read one whole answer, which must say how long it is; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    await reader.readexactly(int(length.partition(":")[2]))
    return int(head.split(" ", 2)[1])


async def listen(port: int, request: bytes, count: int) -> None:
    """Open streams, say how many have sent their first event, and keep them open until standard input ends."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(request)
        try:
            await asyncio.wait_for(reader.readuntil(b"\n\n"), OPEN_SECONDS)
        except (TimeoutError, asyncio.IncompleteReadError):
            return False
        return True

    begun = await asyncio.gather(*(begin(reader, writer) for reader, writer in streams))
    print(json.dumps({"begun": sum(begun)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for _, writer in streams:
        writer.close()


if __name__ == "__main__":
    main()
