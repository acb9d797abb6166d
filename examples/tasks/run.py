"""Runs the study twice; the second time what has succeeded is found in the cache, versions and all."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import study
from runner import Runner, TaskFailed

from stowstore import Volume


async def main(runner: Runner, root: str) -> None:
    """Prepares, trains side by side, collects."""
    data = await runner.call(study.prepare, root, 4)
    trained = await asyncio.gather(*(runner.call(study.train, data, rate) for rate in (1, 2, 3)))
    everything = await runner.call(study.collect, data, trained)

    print("made:", ", ".join(sorted(everything.files.listdir("/"))))
    print("by:", everything.produced_by["task"].partition("-")[0], "in run", everything.produced_by["run"])
    print("from the data:", [one.model.parent_produced_by == data.produced_by for one in trained])
    try:
        await runner.call(study.fail, data)
    except TaskFailed as error:
        print("failed:", str(error).splitlines()[-1])
    print("left as it was:", (await Volume.at(f"{root}#data")).locator == data.locator)


if __name__ == "__main__":
    for name in ("first", "second"):
        runner = Runner(name, Path("cache"))
        asyncio.run(main(runner, sys.argv[1]))
        print(f"{name} run:", ", ".join(sorted(runner.ran)))
