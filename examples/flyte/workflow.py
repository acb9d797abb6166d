"""A workflow of Flyte 2 whose tasks pass volumes: forks side by side, then merged; run here, without a cluster."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import flyte
import pydantic
import stow_flyte

from stowstore import ROVolume, RWVolume, Volume
from stowstore.interop.tasks import volume_field

stow_flyte.register()
env = flyte.TaskEnvironment(name="volumes")


@dataclass
class Trained:
    """A result with a volume in a field: written in the task, a version for everybody else."""

    rate: int
    model: Volume = volume_field(Volume)  # noqa: RUF009 - it is a field


class Report(pydantic.BaseModel):
    """Models hold volumes as they are."""

    data: ROVolume
    everything: Volume
    names: list[str]


@env.task
async def prepare(root: str) -> RWVolume:
    """Without `volumes` as well, what is returned is published: by the type."""
    volume = Volume.new("data", root)
    files = await volume.open()
    files.write_text("numbers", "1 2 3")
    return volume


@env.task
@stow_flyte.volumes
async def train(data: ROVolume, rate: int) -> Trained:
    """A fork, with a result of its own."""
    numbers = [int(text) for text in data.files.read_text("numbers").split()]
    model = await data.fork(f"model-{rate}")
    files = await model.open()
    files.write_text(f"model-{rate}", str(rate * sum(numbers)))
    return Trained(rate=rate, model=model)


@env.task
@stow_flyte.volumes
async def collect(data: ROVolume, trained: list[Trained]) -> Report:
    """All models in one volume."""
    everything = await data.fork("everything")
    for one in trained:
        await everything.merge(one.model)
    names = sorted(one.model.name for one in trained)
    return Report(data=data, everything=everything, names=names)


@env.task
@stow_flyte.volumes
async def fail(data: ROVolume) -> ROVolume:
    """What it writes is gone with it, and so is its lease."""
    volume = await Volume.at(f"{data.bucket}#{data.name}")
    assert isinstance(volume, RWVolume)
    (await volume.open()).write_text("numbers", "half done")
    raise ValueError("the disk is full, say")


@env.task
async def main(root: str) -> Report:
    """Prepares, trains side by side, collects."""
    data = await prepare(root)
    trained = await asyncio.gather(*(train(data, rate) for rate in (1, 2)))
    try:
        await fail(data)
    except Exception as error:  # noqa: BLE001 - Flyte has its own, and none in common
        print("failed:", error)
    return await collect(data, list(trained))


if __name__ == "__main__":
    flyte.init()
    run = flyte.with_runcontext(mode="local").run(main, sys.argv[1])
    report = run.outputs()[0]
    print("made:", ", ".join(sorted(report.everything.files.listdir("/"))), "of", ", ".join(report.names))
    data = Volume.blocking.at(f"{sys.argv[1]}#data")
    print("left as it was:", data.locator == report.data.locator)
    print("by:", sorted(report.everything.produced_by))
    print("an action each:", report.everything.produced_by != report.data.produced_by)
