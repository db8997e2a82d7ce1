"""Build of the extension modules; everything else is declared in pyproject.toml.

``BUILDKIT_MIGRATE_CHECKED=1`` builds with Cython's run-time checks and with the address and
undefined-behaviour sanitizers (run Python with libasan preloaded then; see CONTRIBUTING.md).
"""

import os
import sys
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

# Not "sha256.c" nor "chain.c": those are the names that Cython gives to its own output.
SHA256 = [
    "sha256_dispatch.c",
    "sha256_message.c",
    "sha256_portable.c",
    "sha256_shani.c",
    "sha256_avx2.c",
    "sha256_armv8.c",
    "sha256_hex.c",
]
CHAIN = ["chain_engine.c", "chain_order.c", "chain_hash.c", *SHA256]
BOLT = ["bolt_reader.c"]
SCAN = ["bolt_scan.c", "column.c"]
# Nor "plan.c".
PLAN = [
    "json_value.c",
    "records.c",
    "survey.c",
    "plan_passes.c",
    "plan_counts.c",
    "index_keys.c",
    "plan_edits.c",
]
MODULES = {  # what takes longest comes first
    "plan": ["plan.pyx", *PLAN, *BOLT, *SCAN, *CHAIN],
    "bolt": ["bolt.pyx", *BOLT, *SCAN, "bolt_builder.c", "bolt_rewrite.c", "bolt_check.c"],
    "packing": ["packing.pyx", "packed.c", "lmdb_check.c", *BOLT, "bolt_builder.c"],
    "chain": ["chain.pyx", *CHAIN, "column.c"],
    "sha256": ["sha256.pyx", *SHA256],
    "guard": ["guard.pyx"],
    "bus_error": ["bus_error.pyx", "bus_error_handler.c"],
}

compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-function", "-pthread"]
link_args = ["-pthread"]
if CHECKED:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizers]
    link_args += sanitizers
else:
    # Python's own flags ask for debug information, which would be most of the wheel.
    compile_args += ["-O3", "-g0"]
    link_args += ["-Wl,-s"]


OUTPUT = "build/checked" if CHECKED else "build/native"
HEADERS = [str(path) for path in Path("ext").glob("*.h")]


class BuildOnce(build_ext):
    """Compiles each C source once, whichever modules share it, on all CPUs; then links the modules."""

    def build_extensions(self) -> None:
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
)
