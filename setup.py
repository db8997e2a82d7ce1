"""Build of the extension modules; everything else is declared in pyproject.toml.

``BUILDKIT_MIGRATE_CHECKED=1`` builds with Cython's run-time checks, with the address and
undefined-behaviour sanitizers, and with warnings as errors (run Python with libasan preloaded then; see
CONTRIBUTING.md).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# pip checks `requires-python` only after this file has run, other tools not at all.
if sys.version_info < (3, 11):  # noqa: UP036
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"buildkit-migrate needs Python 3.11 or newer; this is Python {version} ({sys.executable})")

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

CHECKED = os.environ.get("BUILDKIT_MIGRATE_CHECKED") == "1"

EXT = Path("ext")
HEADERS = [str(path) for path in sorted(EXT.rglob("*.h"))]


def folder(name: str) -> list[str]:
    """All C sources of a folder of ``ext/``."""
    return [str(path.relative_to(EXT)) for path in sorted((EXT / name).glob("*.c"))]


SHA256 = folder("sha256")
CHAIN = [*folder("chain"), *SHA256]
BOLT = ["bolt/reader.c"]
WHOLE = [*BOLT, "bolt/mapping.c"]  # reads whole files
BUILD = ["bolt/builder.c", "bolt/stream.c", "bolt/rewrite.c"]
SCAN = ["bolt/scan.c", "core/column.c"]
SALVAGE = ["bolt/salvage.c", "bolt/salvage_open.c", "bolt/ascending.c"]
FACTS = ["plan/records.c", "plan/survey.c"]
PLAN = [source for source in folder("plan") if source not in FACTS]
SPANS = ["core/spans.c", "core/column.c"]
MODULES = {  # what takes longest comes first
    "plan": ["plan.pyx", *PLAN, "json/value.c", *BOLT, "core/column.c", *CHAIN],
    "facts": ["facts.pyx", *FACTS, "json/value.c", *BOLT, *SCAN],
    "building": ["building.pyx", *WHOLE, *BUILD, "bolt/compare.c"],
    "salvaging": ["salvaging.pyx", *BOLT, "bolt/builder.c", *SALVAGE],
    "cells": ["cells.pyx", "columns/cells.c", "columns/decode.c", "json/value.c", *BOLT, *SPANS],
    "columns": ["columns.pyx", "columns/compare.c", "columns/lookup.c", *SPANS],
    "numbers": ["numbers.pyx", "columns/numbers.c", "columns/lookup.c", *SPANS],
    "solver": ["solver.pyx", "columns/solver.c", *SPANS],
    "graph": ["graph.pyx", "columns/graph.c", "core/column.c"],
    "bolt": ["bolt.pyx", *WHOLE, *SCAN, "bolt/rows.c", "bolt/entries.c", "bolt/check.c", "core/spans.c"],
    "packing": ["packing.pyx", *folder("lmdb"), *BOLT, "bolt/builder.c"],
    "tables": ["tables.pyx", *BOLT, "bolt/rows.c", "bolt/entries.c", *SPANS],
    "chain": ["chain.pyx", *CHAIN, *SPANS],
    "sha256": ["sha256.pyx", *SHA256],
    "guard": ["guard.pyx"],
    "bus_error": ["bus_error.pyx", "core/bus_error_handler.c"],
}

compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-function", "-pthread"]
link_args = ["-pthread"]
if CHECKED:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-Werror", "-O1", "-g", "-fno-omit-frame-pointer", *sanitizers]
    link_args += sanitizers
else:
    # Python's own flags ask for debug information, which would be most of the wheel.
    compile_args += ["-O3", "-g0"]
    link_args += ["-Wl,-s"]


OUTPUT = "build/checked" if CHECKED else "build/native"


class BuildOnce(build_ext):
    """Compiles each C source once, whichever modules share it, on all CPUs; then links the modules."""

    def build_extensions(self) -> None:
        require_compiler(self.compiler.compiler_so[0])
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = {}
            for extension in self.extensions:  # while the next one is translated, this one is compiled
                extension.sources = translated(extension)
                for source in extension.sources:
                    if source not in objects:
                        objects[source] = pool.submit(self.compile_once, source)
            for extension in self.extensions:
                extension.extra_objects = [objects[source].result() for source in extension.sources]
                extension.sources = []
        self.force = True  # only linking is left, and cheap
        super().build_extensions()

    def compile_once(self, source: str) -> str:
        """The object file of a source; compiled unless it is newer than all that it is made of."""
        (made,) = self.compiler.object_filenames([source], output_dir=OUTPUT)
        inputs = [source, *HEADERS, "setup.py"]
        if self.force or newer_group(inputs, made):
            directories = ["ext", *self.compiler.include_dirs]
            self.compiler.compile([source], OUTPUT, None, directories, extra_postargs=compile_args)
        return made


def require_compiler(program: str) -> None:
    """Ends with what to install, instead of pages of output, if nothing can be compiled here."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if shutil.which(program) else [f"the C compiler {program}"]
    missing += [] if header.exists() else [f"Python's headers ({header})"]
    if missing:
        sys.exit(
            "buildkit-migrate: no wheel fits this Python, and it can't be built without "
            f"{' and '.join(missing)}. Install them (Debian: gcc python3-dev; Fedora: gcc python3-devel; "
            "Alpine: gcc musl-dev python3-dev), or use a Python for which there is a wheel."
        )


def translated(extension: Extension) -> list[str]:
    """Sources of an extension with Cython's C in the place of the .pyx."""
    from Cython.Build import cythonize

    (result,) = cythonize(
        [extension],
        build_dir=OUTPUT,
        include_path=["src", "ext"],
        compiler_directives={
            "language_level": 3,
            "freethreading_compatible": False,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
            "cdivision": not CHECKED,
            "embedsignature": True,
        },
    )
    return result.sources


def manual() -> list[str]:
    """The manual page, made from the parsers of the commands; none in a build without argparse-manpage."""
    if importlib.util.find_spec("argparse_manpage") is None:
        return []
    page = Path("build/man/buildkit-migrate.1")
    page.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-c", "from argparse_manpage.cli import main; main()", "--output", str(page)),
            *("--module", "buildkit_migrate.cli", "--function", "_make_parser"),
            *("--project-name", "buildkit-migrate", "--manual-title", "BuildKit caches"),
            *("--description", "keep BuildKit's build cache across upgrades, and look after it"),
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", os.environ.get("PYTHONPATH", "")])},
    )
    return [str(page)]


setup(
    ext_modules=[
        Extension(
            f"buildkit_migrate._native.{name}",
            [f"ext/{source}" for source in sources],
            extra_link_args=link_args,
        )
        for name, sources in MODULES.items()
    ],
    cmdclass={"build_ext": BuildOnce},
    data_files=[("share/man/man1", manual())],
)
