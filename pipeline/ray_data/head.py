"""Notice that the head of the cluster is gone: Ray itself waits, and then ends its drivers without a word."""

from __future__ import annotations

import math
import socket
import time

import ray

from pipeline.exceptions import InterruptedRunError

PATIENCE_SECONDS = 45.0
"""A head that is restarted with its memory comes back within that; nodes leave it after 60 s."""
LOOK_SECONDS = 5.0
ANSWER_SECONDS = 0.5


class Head:
    """The address where a cluster's head listens, and since when nobody answers there, on a monotonic clock.

    A head that cannot be reached at first is not watched: Ray may speak to it by another way than this one.
    """

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self.place = host.strip("[]"), int(port)
        self._answered = now if _answers(self.place) else math.inf
        self._looked = now

    def look(self, now: float) -> None:
        """Look at it every few seconds.

        Raises:
            InterruptedRunError: nobody answered for too long.
        """
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if _answers(self.place):
            self._answered = now
        elif now - self._answered >= PATIENCE_SECONDS:
            raise InterruptedRunError(
                f"the head of the Ray cluster, {self.address}, has not answered for {now - self._answered:.0f} s"
            )


def joined_head() -> Head:
    """Return the head of the cluster this process has joined, or of its own."""
    return Head(ray.get_runtime_context().gcs_address, time.monotonic())


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
