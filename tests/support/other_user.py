"""Runs the command as another user, or with fewer rights than root has.

Argument: a JSON object, then the command's arguments. ``uid``, ``gid``, ``groups``: who runs it; ``without``:
numbers of capabilities to give up; ``namespace``: [uid_map, gid_map] of a user namespace to run it in.

All modules are loaded first: the other user may not be allowed to read them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ondisk import OnDisk

CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_FOWNER: Final = 3
CAP_FSETID: Final = 4

NOT_PERMITTED: Final = 99
"""Exit status if the system does not allow becoming that user; tests skip then."""

_CLONE_NEWUSER: Final = 0x10000000
_PR_CAPBSET_DROP: Final = 24
_CAPABILITY_VERSION: Final = 0x20080522


def run(
    who: Mapping[str, Any], *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command as that user; skips the test where that is not possible."""
    import pytest

    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    result = subprocess.run(
        [sys.executable, __file__, json.dumps(dict(who)), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=None if environ is None else dict(environ),
        check=False,
    )
    if result.returncode == NOT_PERMITTED:
        pytest.skip(f"can't become {dict(who)} here: {result.stderr.strip()}")
    return result


def failure(who: Mapping[str, Any], job: Callable[[], object]) -> str:
    """Class and text of what a function raises as another user, in a process of its own; "" if nothing.

    Skips the test where that is not possible.
    """
    import pytest

    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    _load_all()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_try(who, job, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        text = told.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == NOT_PERMITTED:
        pytest.skip(f"can't become {dict(who)} here")
    assert status == 0
    return text


def _try(who: Mapping[str, Any], job: Callable[[], object], writer: int) -> int:
    try:
        become(who)
    except OSError:
        return NOT_PERMITTED
    try:
        job()
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    return 0


def run_without_override(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, bound by the permissions of files even if root runs the tests."""
    import ondisk

    if os.geteuid() != 0:
        return ondisk.run(*arguments)
    return run({"without": [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH]}, *arguments)


def open_directory() -> Iterator[Path]:
    """For a fixture: an empty directory that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def owned(root: OnDisk, uid: int, gid: int) -> OnDisk:
    """Gives all of a root to a user and returns it; skips the test where that is not possible."""
    import pytest

    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (root.root, *root.root.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    return root


def become(who: Mapping[str, Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if "namespace" in who:
        _enter_namespace(libc, *who["namespace"])
    if "uid" in who:
        os.setgroups(who.get("groups", []))
        os.setresgid(*[who["gid"]] * 3)
        os.setresuid(*[who["uid"]] * 3)
    for capability in who.get("without", ()):
        _check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    if who.get("without"):
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of higher ones
        _check(libc.capget(header, data))
        for index in range(3):
            for capability in who["without"]:
                data[index] &= ~(1 << capability)
        _check(libc.capset(header, data))


def _enter_namespace(libc: Any, uid_map: str, gid_map: str) -> None:
    """A process outside of the namespace, still root, must write the maps."""
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            Path(f"/proc/{parent}/{name}").write_text(text)
        os._exit(0)
    result = libc.unshare(_CLONE_NEWUSER)
    os.write(writer, b"x")
    for fd in (reader, writer):
        os.close(fd)
    status = os.waitpid(child, 0)[1]
    _check(result)
    if status:
        raise PermissionError("the maps can't be written")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _load_all() -> None:
    import buildkit_migrate

    for module in pkgutil.walk_packages(buildkit_migrate.__path__, "buildkit_migrate."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("orjson", "lmdb", "shlex", "traceback", "encodings.idna", "rich.console"):
        importlib.import_module(name)


def main(arguments: Sequence[str]) -> int:
    from buildkit_migrate.cli import main as command

    _load_all()
    try:
        become(json.loads(arguments[0]))
    except OSError as error:
        print(error, file=sys.stderr)
        return NOT_PERMITTED
    return command(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
