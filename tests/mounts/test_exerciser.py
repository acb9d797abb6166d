"""The bytes of a file are what was put there, whatever is done to them, while versions are published."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stowstore.mounts.options import MountOptions
from tests.mounts.conftest import Mounting


@pytest.mark.parametrize("kernel_cache", ["writethrough", "writeback"])
def test_bytes_are_what_was_put_there(mounting: Mounting, kernel_cache: str) -> None:
    """Writes, mappings, cuts, holes and copies at random by two processes, each on a file of its own, and commits."""
    volume = mounting.volume()
    path = mounting.mount(volume, options=MountOptions(kernel_cache=kernel_cache))
    exercisers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mounts.exerciser", path / f"file-{seed}", str(seed), "1500"],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    try:
        while any(each.poll() is None for each in exercisers):
            volume.blocking.commit()
        for each in exercisers:
            complaint = each.communicate(timeout=60)[1]
            assert each.returncode == 0, complaint
    finally:
        for each in exercisers:
            each.kill()
            each.communicate(timeout=60)
    expected = {name: (path / name).read_bytes() for name in os.listdir(path)}
    volume.blocking.unmount()
    path = mounting.mount(volume)
    # Without what the kernel had cached.
    assert expected == {name: (path / name).read_bytes() for name in os.listdir(path)}
    version = volume.blocking.finalize()
    assert expected == {name: version.files.read_bytes(f"/{name}") for name in expected}
