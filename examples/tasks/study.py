"""Tasks that pass volumes: one prepares, many go on from forks of it side by side, one merges what they made."""

from __future__ import annotations

from dataclasses import dataclass

from stowstore import ROVolume, RWVolume, Volume


@dataclass
class Trained:
    """A result with a volume in a field: declared as `Volume`, it is written here and a version elsewhere."""

    model: Volume
    loss: float


def prepare(root: str, rows: int) -> RWVolume:
    """A new volume; returned while it is open, it is published."""
    volume = Volume.new("data", root)
    files = volume.blocking.open()
    files.makedirs("raw")
    for row in range(rows):
        files.write_text(f"raw/{row}", str(row))
    return volume


def train(data: ROVolume, rate: int) -> Trained:
    """A fork of the data, with a result of its own; the data themselves are shared, not copied."""
    values = [int(data.files.read_text(f"raw/{name}")) for name in data.files.listdir("raw")]
    model = data.blocking.fork(f"model-{rate}")
    model.blocking.open().write_text(f"model-{rate}.txt", str(rate * sum(values)))
    return Trained(model=model, loss=1 / rate)


def collect(data: ROVolume, trained: list[Trained]) -> RWVolume:
    """All models in one volume."""
    everything = data.blocking.fork("everything")
    for one in trained:
        everything.blocking.merge(one.model)
    return everything


def fail(data: ROVolume) -> RWVolume:
    """What a failed task has written is not published, and nobody has to wait for its lease."""
    volume = Volume.blocking.at(f"{data.bucket}#{data.name}")
    assert isinstance(volume, RWVolume)
    volume.blocking.open().write_text("raw/0", "half done")
    raise ValueError("the disk is full, say")
