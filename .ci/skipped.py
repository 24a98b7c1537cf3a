"""Compare the tests that two runs skipped, from their junit files (`-o junit_family=xunit1`).

    skipped.py list FIRST
    skipped.py check FIRST SECOND [ALLOWED ...]

`list` prints the ids of the tests that a run skipped, one per line. `check` fails if the second run
skipped one of them too, unless the reason matches `NOT_PROVIDED` or an allowed expression.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET

# What continuous integration does not provide, by the reason for which a test skips itself.
NOT_PROVIDED = (
    "needs a GPU",
    "no pdflatex on this machine",
    "root may write everywhere",
    "this file system takes names of UTF-8 only",
    "mounting is not permitted here",
)


def reasons(path: str) -> dict[str, str | None]:
    """Map the id of each test to the reason why it was skipped, or None if it ran."""
    found: dict[str, str | None] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        file, name = case.get("file", ""), case.get("name", "")
        module = file.removesuffix(".py").replace("/", ".")
        classes = case.get("classname", "").removeprefix(module).split(".")[1:]
        skipped = case.find("skipped")
        reason = None if skipped is None else skipped.get("message", "no reason")
        found["::".join([file, *classes, name])] = reason
    return found


def check(first: str, second: str, *allowed: str) -> None:
    """Exit with a message if a test ran in neither of two runs without an allowed reason."""
    skipped = [test for test, reason in reasons(first).items() if reason is not None]
    again = reasons(second)
    left = {test: again.get(test, "it was not selected") for test in skipped}
    left = {test: reason for test, reason in left.items() if reason is not None}
    print(f"{len(skipped) - len(left)} of {len(skipped)} tests that the first run skipped ran now")
    for test, reason in left.items():
        print(f"  in neither run: {test}: {reason}")
    pattern = "|".join([*NOT_PROVIDED, *allowed])
    if wrong := [test for test, reason in left.items() if not re.search(pattern, reason)]:
        sys.exit(f"{len(wrong)} tests ran in neither run without an allowed reason: {wrong[:5]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"] and len(sys.argv) == 3:
        print(*(test for test, why in reasons(sys.argv[2]).items() if why is not None), sep="\n")
    elif sys.argv[1:2] == ["check"] and len(sys.argv) >= 4:
        check(*sys.argv[2:])
    else:
        sys.exit(__doc__)
