"""setup.py itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_old_python_is_refused_before_anything_is_imported_or_compiled() -> None:
    code = (
        "import sys\n"
        "sys.version_info = (3, 10, 14)\n"
        "sys.modules['setuptools'] = sys.modules['Cython'] = None  # importing them fails\n"
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "needs Python 3.11 or newer; this is Python 3.10" in result.stderr
    assert "Traceback" not in result.stderr


def build(tmp_path: Path, before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py after some other code. It must end before it compiles."""
    arguments = ["setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    code = f"import sys, sysconfig; sys.argv = {arguments}; {before}\n"
    return subprocess.run(
        [sys.executable, "-c", code + "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_without_compiler_the_build_says_what_to_install(tmp_path: Path) -> None:
    result = build(tmp_path, "pass", CC="no-such-compiler")
    assert result.returncode == 1
    assert "without the C compiler no-such-compiler. Install" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_headers_the_build_says_what_to_install(tmp_path: Path) -> None:
    result = build(tmp_path, "sysconfig.get_path = lambda *rest: '/nowhere'", CC=sys.executable)
    assert result.returncode == 1
    assert "without Python's headers (/nowhere/Python.h). Install" in result.stderr
    assert "Traceback" not in result.stderr
