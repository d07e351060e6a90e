"""Work in a process of its own, with a time limit: peers hang, and memory is only clean in a fresh process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_MAPS = Path("/proc/self/smaps")
_RESET = Path("/proc/self/clear_refs")


class WorkError(RuntimeError):
    """What went wrong in the process: its exception, a time limit, or its sudden end."""


def limit_cores(cores: int) -> None:
    """Use the first so many cores; call it before importing what starts threads.

    The affinity also binds libraries whose thread count cannot be set (ONNX Runtime inside of speechmos).
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(cores)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    torch.set_num_threads(cores)


def limit_memory(gigabytes: float) -> None:
    """Let allocations beyond so much more than now fail, instead of the machine."""
    if _STATUS.is_file():
        now = _status("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (now + int(gigabytes * 2**30),) * 2)


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text())
    return int(found.group(1)) * 1024 if found else 0


def reset_peak() -> None:
    """Start counting the peak anew, where the system can."""
    if _RESET.is_file():
        _RESET.write_text("5")


def peak_memory() -> int:
    """Highest resident memory in bytes.

    Linux's VmHWM is used where there is one: `ru_maxrss` is inherited from the parent process.
    """
    if _STATUS.is_file():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def code_memory() -> int:
    """Resident bytes of libraries' files, which come in as their code is used (0 where the system does not say)."""
    if not _MAPS.is_file():
        return 0
    library, total = False, 0
    for line in _MAPS.read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # the head of a mapping: its addresses, rights, ..., and its file
            library = ".so" in Path(words[-1]).name
        elif library and words[0] == "Rss:":
            total += int(words[1]) * 1024
    return total


def _serve(connection: multiprocessing.connection.Connection, target: Callable[..., Any]) -> None:
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere:  # some peers print
        os.dup2(nowhere.fileno(), 1)
        while True:
            try:
                arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send((True, target(*arguments)))
            except Exception as error:  # noqa: BLE001 - it is reported
                text = " ".join(str(error).split())
                connection.send((False, f"{type(error).__name__}: {text}"))


class Worker:
    """A process that calls one function again and again; after a time limit or a crash it is a new process."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self._target = target
        self._process: multiprocessing.context.SpawnProcess | None = None
        self._connection: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._target), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def call(self, *arguments: Any, timeout: float) -> Any:
        """Call the function.

        Raises:
            WorkError: If it raised, took longer than `timeout` seconds, or its process died.
        """
        if self._process is None:
            self._start()
        self._connection.send(arguments)
        try:
            if not self._connection.poll(timeout):
                self.stop()
                raise WorkError(f"no answer within {timeout:g} s")
            done, answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self.stop()
            raise WorkError("its process died (out of memory?)") from error
        if not done:
            raise WorkError(answer)
        return answer
