"""Work ahead in another thread, in a way that Ctrl-C can interrupt anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before is worked on.

    By queues in C: the locks of executors and their futures are left closed by a Ctrl-C that comes in their midst, and
    the process would hang.
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def make() -> None:
        while wanted.get():
            try:
                made.put((next(items, None), None))
            except BaseException as error:
                made.put((None, error))

    reader = Thread(target=make, daemon=True)
    reader.start()
    try:
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
        reader.join()
