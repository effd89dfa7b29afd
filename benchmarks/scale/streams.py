"""Idle event streams: what they cost the API, and how long another request takes beside them."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.scale.api import Api

SETTLE_SECONDS = 2.0  # after the last stream has reported the state of its job
SECONDS = 10.0  # of measuring
GETS = 50
GET_PAUSE_SECONDS = 0.1
UNRELATED = "/v1/datasets?limit=1"


def measure(api: Api, *, streams: int) -> dict[str, float]:
    """Follow as many queued jobs, each in a connection of its own."""
    return asyncio.run(_measure(api, streams))


async def _measure(api: Api, streams: int) -> dict[str, float]:
    jobs = await asyncio.to_thread(_queued, api, streams)
    async with AsyncExitStack() as opened:
        states = [await _follow(api, job, opened) for job in jobs]
        await asyncio.wait_for(asyncio.gather(*(state.wait() for state in states)), timeout=60)
        await asyncio.sleep(SETTLE_SECONDS)
        began, used = time.perf_counter(), _processor_seconds(api.pid)
        await asyncio.sleep(SECONDS)
        share = (_processor_seconds(api.pid) - used) / (time.perf_counter() - began)
        took = []
        for _ in range(GETS):
            began = time.perf_counter()
            await asyncio.to_thread(api.connection.request, "GET", UNRELATED)
            took.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(GET_PAUSE_SECONDS)
    return {
        "streams": len(jobs),
        "streams_core_share": round(share, 3),
        "streams_get_ms_p50": round(median(took), 2),
    }


def _queued(api: Api, streams: int) -> Sequence[str]:
    """Ids of the newest queued jobs."""
    found: list[str] = []
    path = "/v1/jobs?state=queued&limit=100"
    while len(found) < streams:
        page: Any = api.connection.request_json("GET", path)
        found += [job["id"] for job in page["data"]]
        if page["next"] is None:
            break
        path = f"/v1/jobs?state=queued&limit=100&after={page['next']}"
    return found[:streams]


async def _follow(api: Api, job_id: str, opened: AsyncExitStack) -> asyncio.Event:
    """Open a stream. The event is set once it has reported the state of the job."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    opened.callback(writer.close)
    request = f"GET /v1/jobs/{job_id}/stream HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n"
    writer.write(request.encode())
    state = asyncio.Event()

    async def read() -> None:
        while line := await reader.readline():
            if line.startswith(b"event: state"):
                state.set()

    task = asyncio.create_task(read())
    opened.callback(task.cancel)
    return state


def _processor_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
