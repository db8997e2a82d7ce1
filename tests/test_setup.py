"""setup.py itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


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
