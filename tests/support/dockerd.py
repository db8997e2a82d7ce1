"""A private Docker Engine: started on a data root, with a containerd of its own, and asked over its socket.

Debian's docker.io 20.10 still has BuildKit's own migration, and runs it when it starts.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import containerd_daemon
from containerd_daemon import Containerd, end

API = "/v1.41"


def why_missing() -> str:
    """The reason why no engine can be started here, "" if one can."""
    if reason := containerd_daemon.why_missing():
        return reason
    program = shutil.which("dockerd")
    if program is None:
        return "no dockerd command"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return "" if " 20.10." in version else f"no dockerd 20.10: {version.strip()}"


class Dockerd:
    """An engine that runs inside a `with` block. It changes no network and no firewall."""

    def __init__(self, data: Path, *, patience: float = 60) -> None:
        """``patience``: seconds that a start may take."""
        self.data = data
        self._patience = patience
        # The path of a Unix socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="bkd", dir="/tmp"))
        self._containerd = Containerd()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def migrated(self) -> int:
        """How many records the engine has migrated by itself."""
        return self.log.count('msg="migrated ')

    def __enter__(self) -> Dockerd:
        try:
            self._containerd.__enter__()
            self._start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.log[-3000:])
        self._discard()

    def _start(self) -> None:
        settings = self.directory / "daemon.json"
        settings.write_text("{}")
        self._process = self.process(
            *("--config-file", str(settings)),
            *("--data-root", str(self.data)),
            *("--exec-root", str(self.directory / "exec")),
            *("--pidfile", str(self.directory / "pid")),
            *("--host", f"unix://{self.directory / 's'}"),
            *("--containerd", self._containerd.address),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"),
        )
        deadline = time.monotonic() + self._patience
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not answer\n{self.log[-3000:]}")
            time.sleep(0.1)

    def process(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(["dockerd", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/_ping") == "OK"
        except OSError:
            return False

    def ask(self, method: str, path: str) -> Any:
        """The answer of the engine's interface. Raises RuntimeError if it is an error."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(60)
            connected.connect(str(self.directory / "s"))
            connection = http.client.HTTPConnection("docker")
            connection.sock = connected
            connection.request(method, API + path)
            response = connection.getresponse()
            content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content.decode(errors='replace')}")
        is_json = response.headers.get_content_type() == "application/json"
        return json.loads(content or b"null") if is_json else content.decode()

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of the builder as ``docker system df -v`` lists them."""
        return {record["ID"]: record for record in self.ask("GET", "/system/df")["BuildCache"] or ()}

    def prune_all(self) -> None:
        """``docker builder prune -af``, and the removal of all images."""
        self.ask("POST", "/build/prune?all=true")
        for image in self.ask("GET", "/images/json?all=true"):
            try:
                self.ask("DELETE", f"/images/{quote(image['Id'])}?force=true")
            except RuntimeError as error:
                if ": 404 " not in str(error):  # it went with its child
                    raise

    def stop(self) -> None:
        """Ends the engine with SIGTERM, or with SIGKILL if that does not help."""
        process, self._process = self._process, None
        end(process, 30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _discard(self) -> None:
        self.stop()
        self._containerd.__exit__(None, None, None)
        # An engine that does not come up leaves its data root mounted on itself.
        subprocess.run(["umount", "-q", str(self.data)], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def layers_left(data: Path) -> list[Path]:
    """Directories of layers, of the storage driver and of the layer store."""
    return [
        path
        for parent in (data / "overlay2", data / "image" / "overlay2" / "layerdb" / "sha256")
        for path in (sorted(parent.iterdir()) if parent.exists() else ())
        if path != data / "overlay2" / "l"
    ]
