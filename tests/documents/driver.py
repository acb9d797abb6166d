"""Runs the blocks of one document, in a process of its own: ``python -W error driver.py STEPS`` (JSON).

Python blocks are one program, shell blocks one session, and both go on where the block before has stopped. The place of
a block that fails, and what it printed, are the last that is said.
"""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from types import ModuleType

_MARK = "--- the end of a block ---"


def main(steps_file: str) -> None:
    """Runs the steps, ``{"place", "language", "text", "output"}`` each."""
    program = sys.modules["__main__"] = ModuleType("__main__")
    shell = subprocess.Popen(
        ["bash", "-eu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    with shell:
        for number, step in enumerate(json.loads(Path(steps_file).read_text(encoding="utf-8"))):
            if step["language"] == "sh":
                printed = _source(shell, Path(steps_file).with_suffix(f".{number}.sh"), step)
            else:
                code = compile(step["text"], step["place"], "exec")
                with redirect_stdout(StringIO()) as out:
                    exec(code, program.__dict__)  # noqa: S102 - it is what this is for
                printed = out.getvalue()
            if step["output"] is not None and not _is_like(printed, step["output"]):
                sys.exit(f"{step['place']}: printed\n{printed}\ninstead of\n{step['output']}")


def _source(shell: "subprocess.Popen[str]", script: Path, step: dict[str, str]) -> str:
    assert shell.stdin is not None
    assert shell.stdout is not None
    script.write_text(step["text"], encoding="utf-8")
    shell.stdin.write(f". '{script}' < /dev/null\nprintf '\\n%s\\n' '{_MARK}'\n")
    shell.stdin.flush()
    lines = []
    for line in shell.stdout:
        if line.rstrip() == _MARK:
            return "".join(lines)
        lines.append(line)
    sys.exit(f"{step['place']}: a command failed\n{step['text']}\nprinted:\n{''.join(lines)}")


def _is_like(printed: str, expected: str) -> bool:
    """Whether a text is another, in which ``...`` stands for anything within a line, and a line of it for any lines."""
    lines = [line.rstrip() for line in printed.splitlines() if line.strip()]
    patterns = [line.rstrip() for line in expected.splitlines() if line.strip()]
    return _fits(lines, patterns)


def _fits(lines: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not lines
    if patterns[0] == "...":
        return any(_fits(lines[skipped:], patterns[1:]) for skipped in range(len(lines) + 1))
    return bool(lines) and fnmatchcase(lines[0], _pattern(patterns[0])) and _fits(lines[1:], patterns[1:])


def _pattern(line: str) -> str:
    quoted = "".join(f"[{sign}]" if sign in "[*?" else sign for sign in line)
    return quoted.replace("...", "*")


if __name__ == "__main__":
    main(sys.argv[1])
