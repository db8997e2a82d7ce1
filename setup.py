"""Build of the extension modules; everything else is declared in pyproject.toml.

``BUILDKIT_MIGRATE_CHECKED=1`` builds with Cython's run-time checks and with the address and
undefined-behaviour sanitizers (run Python with libasan preloaded then; see CONTRIBUTING.md).
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

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
    "index_keys.c",
    "plan_edits.c",
]
MODULES = {
    "sha256": ["sha256.pyx", *SHA256],
    "chain": ["chain.pyx", *CHAIN, "column.c"],
    "bolt": ["bolt.pyx", *BOLT, *SCAN, "bolt_builder.c", "bolt_rewrite.c", "bolt_check.c"],
    "packing": ["packing.pyx", "packed.c", "lmdb_check.c", *BOLT, "bolt_builder.c"],
    "plan": ["plan.pyx", *PLAN, *BOLT, *SCAN, *CHAIN],
    "bus_error": ["bus_error.pyx", "bus_error_handler.c"],
}

compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-function", "-pthread"]
link_args = ["-pthread"]
if CHECKED:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizers]
    link_args += sanitizers
else:
    compile_args += ["-O3"]

extensions = [
    Extension(
        f"buildkit_migrate._native.{name}",
        [f"ext/{source}" for source in sources],
        include_dirs=["ext"],
        depends=[f"ext/{entry.name}" for entry in os.scandir("ext") if entry.name.endswith(".h")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name, sources in MODULES.items()
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
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
)
