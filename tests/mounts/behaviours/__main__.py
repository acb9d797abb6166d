"""Has the behaviours of a family act below a directory, and writes what each gave back, pickled, as soon as it has."""

import os
import pickle
import sys
import traceback

from tests.mounts.behaviours import FAMILIES
from tests.mounts.behaviours.calling import Behaviour


def main(family: str, directory: str) -> None:
    answers = os.dup(1)
    # What a behaviour runs may print.
    os.dup2(2, 1)
    os.umask(0)
    os.mkdir(directory)
    for name, behaviour in FAMILIES[family].items():
        place = f"{directory}/{name}"
        os.mkdir(place)
        child = os.fork()
        if not child:
            _act(name, behaviour, place, answers)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            _tell(answers, name, None, f"ended with {status}")


def _act(name: str, behaviour: Behaviour, place: str, answers: int) -> None:
    """Acts in a process that nobody needs any more."""
    try:
        os.chdir(place)
        os.umask(0o022)
        try:
            _tell(answers, name, behaviour(), "")
        except BaseException:  # noqa: BLE001 - it belongs into the report
            _tell(answers, name, None, traceback.format_exc())
        os._exit(0)
    finally:
        os._exit(1)


def _tell(answers: int, name: str, answer: object, complaint: str) -> None:
    data = memoryview(pickle.dumps((name, answer, complaint)))
    while data:
        data = data[os.write(answers, data) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
