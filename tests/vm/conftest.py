# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of both lanes, built once (or found up to date) for all tests that boot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cloison_forge.machine import inputs
from cloison_forge.machine.inputs import Inputs
from cloison_forge.pipeline import Request

ROOT = Path(__file__).resolve().parents[2]
Task = Callable[..., "subprocess.CompletedProcess[bytes]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.timeout(900))


@cache
def machine(lane: str, variant: str = "on") -> Inputs:
    """Return what a lane boots."""
    return inputs.make(Request(variant=variant), inputs.LANES[lane])


@pytest.fixture(name="machines", scope="session")
def fixture_machines() -> Callable[..., Inputs]:
    """Return a function that gives a lane's kernel and disk."""
    return machine


@pytest.fixture(name="invoke", scope="session")
def fixture_invoke() -> Task:
    """Return a function that runs a task as a user does."""

    def run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT,
            input=data,
            capture_output=True,
            check=False,
            env={**os.environ, "CI": "true"},
        )

    return run
