"""Work ahead in another thread, in a way that Ctrl-C can interrupt anywhere."""

from __future__ import annotations

import sys
from _thread import start_new_thread
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before is worked on.

    By queues and a thread made in C: the locks of executors, of their futures and of the start of a
    ``threading.Thread`` are written in Python, and a Ctrl-C in their midst leaves them closed, so that the process
    hangs, or ends in another error.
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    ended: SimpleQueue[bool] = SimpleQueue()

    def make() -> None:
        while wanted.get():
            try:
                made.put((next(items, None), None))
            except BaseException as error:
                made.put((None, error))
        ended.put(True)

    started = False
    try:
        start_new_thread(make, ())
        started = True
        wanted.put(True)
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            wanted.put(True)
            yield item
    finally:
        wanted.put(False)
        # what could not start, or was interrupted just then, is not waited for, nor what stands still as Python ends
        if started and not sys.is_finalizing():
            ended.get()
