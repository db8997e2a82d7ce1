"""When memory runs out, check raises MemoryError and never leaves out a finding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicts import file_of

pytest.importorskip("_testcapi")

# Each allocation in turn fails, in a separate process: after running out of memory, the interpreter may have
# lost more than it reports.
PROGRAM = """
import sys
from _testcapi import remove_mem_hooks, set_nomemory
from buildkit_migrate._native.bolt import Reader, check

unraisable = []
sys.unraisablehook = unraisable.append
reader = Reader(open(sys.argv[1], "rb").read())
expected = check(reader)
failed = 0
for allocation in range(10_000):
    found = None
    set_nomemory(allocation, allocation + 1)
    try:
        found = check(reader)
    except MemoryError:
        pass
    remove_mem_hooks()
    if found is None:
        failed += 1
        continue
    assert found == expected, (allocation, len(found), len(expected))
    if allocation > 10 * len(expected) + 100:
        break
assert not unraisable, unraisable
print(len(expected), failed)
"""


def test_no_finding_is_lost_when_memory_runs_out(tmp_path: Path) -> None:
    data = bytearray(file_of({b"b": {b"%06d" % i: b"v" * 300 for i in range(200)}}, 1024))
    for page in range(4, 24):
        data[page * 1024 + 8] = 0x10
    (tmp_path / "damaged").write_bytes(data)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "damaged"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    findings, failed = map(int, process.stdout.split())
    assert findings >= 20
    assert failed >= findings
