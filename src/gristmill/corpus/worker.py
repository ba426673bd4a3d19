"""A process that works for another: it reads what to do from its standard input and answers on its standard output.

    python -c "from gristmill.corpus.worker import main; main()" PROCESS

Messages are pickles with their length before them, between processes of one run only. It does not outlive the process
that it works for, not even while it works.
"""

import contextlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

__all__ = ["Worker", "WorkerDiedError", "main"]

_LENGTH = struct.Struct("<q")


class WorkerDiedError(Exception):
    """A worker's process ended while it worked."""


class Worker:
    """A process of its own that calls functions. Who calls also closes; `kill` may come from another thread."""

    def __init__(self) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._back = self._process.stdin, self._process.stdout
        _send(self._to, sys.path)

    def call(self, work: Callable[[Any], Any], item: Any) -> Any:
        """Returns work(item), done there; what it raises is raised here.

        Raises:
            WorkerDiedError: the process ended before it had answered.
        """
        try:
            _send(self._to, (work, item))
            raised, value = _receive(self._back)
        except (OSError, EOFError):
            code = self._process.wait()
            self.close()
            raise WorkerDiedError(f"signal {-code}" if code < 0 else f"exit code {code}") from None
        if raised:
            raise value
        return value

    def kill(self) -> None:
        """Ends the process, whatever it is doing; a call that waits for it raises WorkerDiedError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and lets go of what leads to it."""
        self.kill()
        self._process.wait()
        self._back.close()
        with contextlib.suppress(OSError):  # what it has not read any more
            self._to.close()


def _send(stream: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _end_with(process: int) -> None:
    """Ends this process when another one, its parent, has ended."""
    while os.getppid() == process:
        time.sleep(0.2)
    os._exit(1)


def main() -> None:
    """Works until there is nothing more to read, for the process whose number is the first argument."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the process that asked decides
    sys.path[:] = _receive(stdin)
    while True:
        try:
            work, item = _receive(stdin)
        except EOFError:
            return
        try:
            answer = (False, work(item))
        except Exception as error:  # whatever it is, it is raised where it was asked for
            answer = (True, error)
        try:
            _send(stdout, answer)
        except (pickle.PicklingError, TypeError, AttributeError):
            _send(stdout, (True, RuntimeError(repr(answer[1]))))
