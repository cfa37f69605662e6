# SPDX-License-Identifier: GPL-2.0-or-later
"""The one process runner: a log file always, progress on the way, and a useful failure."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

from cloison_forge.core.errors import CommandError, ToolMissingError

Argument = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """What a command left: its arguments, exit status and standard output (with standard error if merged)."""

    argv: tuple[str, ...]
    status: int
    output: str


def command_line(argv: Sequence[Argument]) -> str:
    """Return `argv` as a line that can be pasted into a shell."""
    return shlex.join(os.fspath(word) for word in argv)


def require(program: str, *, package: str = "", why: str = "") -> str:
    """Return the path of `program`, or fail and name the Debian package that holds it."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        reason = f", needed {why}" if why else ""
        raise ToolMissingError(
            f"{program} is not installed{reason}",
            hint=f"apt-get install {package or program}, or run ./invoke doctor",
        )
    return found


def run(
    argv: Sequence[Argument],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    input_text: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    merge_stderr: bool = True,
    hint: str = "",
) -> Result:
    """Run a command to its end and return its `Result`.

    `env` is added to the caller's environment. `input_text` goes to the command's standard input
    (not together with `on_line`, which sees each line of output as it comes). `log` gets the command
    line and everything it prints; it is appended to. `timeout` is in seconds. With `check`, an exit
    status other than 0 raises `CommandError` with the command, its last lines and the log's path; a
    program that is not installed raises `ToolMissingError`.
    """
    words = tuple(os.fspath(word) for word in argv)
    require(words[0])
    environment = {**os.environ, **(env or {})}
    if "/usr/sbin" not in environment.get("PATH", ""):
        environment["PATH"] = environment.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with (log or Path(os.devnull)).open("a", encoding="utf-8", buffering=1) as sink:
        sink.write(f"+ {command_line(words)}\n")
        sink.flush()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE if input_text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            if on_line is None:
                output, errors = process.communicate(input_text, timeout=timeout)
                sink.write(output + (errors or ""))
            else:
                output, errors = _follow(process, sink, on_line, timeout), ""
        except subprocess.TimeoutExpired:
            _stop(process)
            raise CommandError(
                f"{Path(words[0]).name} did not end within {timeout:.0f} s: {command_line(words)}", hint=hint
            ) from None
        except BaseException:
            _stop(process)
            raise
    if check and process.returncode != 0:
        raise _failure(words, process.returncode, (output + (errors or "")).splitlines()[-12:], log, hint)
    return Result(words, process.returncode, output)


def _follow(process: subprocess.Popen[str], sink: TextIO, on_line: Callable[[str], None], timeout: float | None) -> str:
    """Read a command's output line by line; a timer ends the command, and with it the reading."""
    lines: list[str] = []
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _stop(process)

    timer = threading.Timer(timeout if timeout is not None else threading.TIMEOUT_MAX, expire)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            sink.write(line)
            lines.append(line)
            on_line(line.rstrip("\n"))
        process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
    return "".join(lines)


class Fed:
    """A command that reads its standard input from this program, piece by piece: tar, gpgv.

    Use it as a context manager; `finish` waits for the command. Leaving the block without it kills
    the command. A command that stops reading early is no error by itself: its exit status decides.
    """

    def __init__(self, argv: Sequence[Argument], *, cwd: Path | None = None) -> None:
        self.argv = tuple(os.fspath(word) for word in argv)
        require(self.argv[0])
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 closed in __exit__
        self._process = subprocess.Popen(
            self.argv,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def write(self, data: bytes) -> None:
        """Give the command more input."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(data)

    def finish(self, *, check: bool = True, hint: str = "") -> Result:
        """End the input, wait, and return the result; with `check` a status other than 0 raises `CommandError`."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        status = self._process.wait()
        self._output.seek(0)
        output = self._output.read().decode("utf-8", "replace")
        if check and status != 0:
            raise _failure(self.argv, status, output.splitlines()[-12:], None, hint)
        return Result(self.argv, status, output)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            _stop(self._process)
        self._output.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a command, and those of its children that are still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(words: Sequence[str], status: int, tail: list[str], log: Path | None, hint: str) -> CommandError:
    how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
    text = f"{Path(words[0]).name} {how}: {command_line(words)}"
    if len(text) > 400:
        text = text[:400] + " …"
    for line in tail:
        text += f"\n          | {line}"
    where = f"the whole output is in {log}" if log else ""
    return CommandError(
        text, hint="; ".join(part for part in (hint, where) if part), status_code=status, log=str(log or "")
    )
