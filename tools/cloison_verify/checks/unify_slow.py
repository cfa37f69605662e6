# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: copies that do not get on keep only those waiting who want the same name."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Link, Scene, SceneError, Seen
from cloison_verify.shared_files import folder, mark, open_to_write, pair
from cloison_verify.volumes import settle, volume

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
MANY = 64
"""Copies at once: more than there are locks in any table that might be shared."""
PATIENCE = 5
"""Seconds after which who has not opened a file is taken for waiting."""


class _Stalled:
    """A file system that takes no writes while it is frozen: its image lies on another, which is."""

    def __init__(self, where: str, below: str) -> None:
        self.where = Path(where)
        self._below = os.open(below, os.O_RDONLY)
        self._frozen = False

    def freeze(self) -> None:
        fcntl.ioctl(self._below, FIFREEZE, 0)
        self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            fcntl.ioctl(self._below, FITHAW, 0)
            self._frozen = False

    def close(self) -> None:
        self.thaw()
        os.close(self._below)


@contextmanager
def _stalled() -> Iterator[_Stalled]:
    with volume(options="", features="") as below, volume(options="", features="", where=below.folder) as above:
        made = _Stalled(above.folder, below.folder)
        try:
            yield made
        finally:
            made.close()


def _shared(path: Path) -> Path:
    path.write_bytes(b"shared\n" * 1000)
    mark(path)
    os.link(path, path.with_name(f"{path.name}-other"))
    return path


def _opened(scene: Scene, path: Path) -> str:
    """Let a guest open a file for writing; say whether that ended."""

    def body(link: Link) -> None:
        open_to_write(path)
        link.send("opened")

    actor = scene.insider(body)
    ready, _, _ = select.select([actor.link.socket], [], [], PATIENCE)
    if not ready:
        return "waits"
    said = actor.link.receive()
    if said != "opened":
        raise SceneError(said)
    return said


def _crowd(scene: Scene, *, elsewhere: bool) -> Seen:
    """Start many copies that hang, and open one more file, on another file system or on that."""
    with folder("tmpfs") as calm, _stalled() as stalled:
        files = [_shared(stalled.where / str(number)) for number in range(MANY)]
        one_more = pair(calm).own if elsewhere else _shared(stalled.where / "one-more")
        settle(str(stalled.where))

        def copy(link: Link) -> None:
            threads = [threading.Thread(target=open_to_write, args=(path,)) for path in files]
            for thread in threads:
                thread.start()
            link.send("started")
            for thread in threads:
                thread.join()
            link.send("done")

        stalled.freeze()
        crowd = scene.insider(copy)
        crowd.link.receive()
        time.sleep(2)
        hanging = not select.select([crowd.link.socket], [], [], 0)[0]
        said = _opened(scene, one_more)
        stalled.thaw()
        if crowd.link.receive() != "done":
            raise SceneError("the copies have not ended")
        scene.close()  # nobody holds the file systems any more
    return Seen(f"{'copies hang' if hanging else 'copies end'}, {said}")


check(
    "unify.slow-copies",
    title="copies that take for ever keep nobody waiting who opens another file",
    attack=f"open(O_WRONLY) of a shared file while {MANY} copies hang on a disk that does not answer",
    expected="copies hang, opened",
    control=instead(lambda scene: _crowd(scene, elsewhere=False), "copies hang, waits", "a file on the same disk"),
    vectors=["F43"],
    seconds=90,
)(lambda scene: _crowd(scene, elsewhere=True))
