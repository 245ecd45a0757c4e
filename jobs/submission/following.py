"""Show what a job's driver prints while it runs, through streams that drop, to the end of the job and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobs.submission.server import ClusterJob, JobServer

LOOK_SECONDS = 2.0
LAST_WORDS_SECONDS = 5.0
"""How long after a job's end its stream may still bring lines; what is missing then is fetched."""

Write = Callable[[str], None]


def follow(server: JobServer, job_id: str, write: Write) -> ClusterJob:
    """Print the log of a job from its beginning until it has ended; return how it ended.

    Raises:
        InterruptedRunError: the server does not answer any more; the job may go on.
    """
    return asyncio.run(_Follower(server, job_id, write).run())


class _Follower:
    def __init__(self, server: JobServer, job_id: str, write: Write) -> None:
        self._server, self._id, self._write = server, job_id, write
        self._printed = 0

    async def run(self) -> ClusterJob:
        while True:
            stream = asyncio.create_task(self._copy())
            job = await self._watch(stream)
            if not job.over:
                continue  # the stream dropped: the next one repeats all, and what was printed is skipped
            await asyncio.wait({stream}, timeout=LAST_WORDS_SECONDS)
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
            log = await asyncio.to_thread(self._server.log, self._id)
            self._print(log, 0)
            return job

    async def _watch(self, stream: asyncio.Task[None]) -> ClusterJob:
        """Look at the job until it or its stream ends: a stream can also fall silent for ever."""
        while True:
            await asyncio.wait({stream}, timeout=LOOK_SECONDS)
            job = await asyncio.to_thread(self._server.job, self._id)
            if job.over:
                return job
            if stream.done():
                stream.exception()  # looked at, so that asyncio does not report it
                await asyncio.sleep(LOOK_SECONDS)
                return job

    async def _copy(self) -> None:
        seen = 0
        async for text in self._server.tail(self._id):
            seen = self._print(text, seen)

    def _print(self, text: str, start: int) -> int:
        """Print what is new of a text that begins `start` characters into the log; return where it ends."""
        end = start + len(text)
        if end > self._printed:
            self._write(text[max(self._printed - start, 0) :])
            self._printed = end
        return end
