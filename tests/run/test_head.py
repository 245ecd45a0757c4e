"""A head that does not answer ends the run, and one that comes back in time does not."""

from __future__ import annotations

import socket

import pytest

from pipeline.exceptions import InterruptedRunError
from pipeline.ray_data.head import LOOK_SECONDS, PATIENCE_SECONDS, Head


def listening(port=0):
    return socket.create_server(("127.0.0.1", port))


def test_a_head_that_is_gone_ends_the_run_and_is_named():
    with listening() as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}", now=0)
        head.look(LOOK_SECONDS)
    head.look(2 * LOOK_SECONDS)
    head.look(LOOK_SECONDS + PATIENCE_SECONDS - 1)
    with pytest.raises(InterruptedRunError, match=f"{head.address}, has not answered for 50 s"):
        head.look(LOOK_SECONDS + PATIENCE_SECONDS + LOOK_SECONDS)


def test_a_head_that_comes_back_is_the_head():
    with listening() as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}", now=0)
    head.look(PATIENCE_SECONDS - 1)
    with listening(head.place[1]):
        head.look(PATIENCE_SECONDS + LOOK_SECONDS)
    head.look(2 * PATIENCE_SECONDS)


def test_a_head_that_cannot_be_reached_at_first_is_not_watched():
    with listening() as server:
        port = server.getsockname()[1]
    Head(f"127.0.0.1:{port}", now=0).look(3 * PATIENCE_SECONDS)
