"""Where a worker's containerd is and what BuildKit uses in it, each setting with its origin.

A wrong namespace makes every record look broken, so every plan starts with what is processed, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from buildkit_migrate.settings import Setting
from buildkit_migrate.text import named_text

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """Settings of one worker. ``kind``: "OCI", "containerd" or "Docker"; "" if the caller passed services.

    ``root``: BuildKit's, None if unknown. ``containerd``: socket or database. ``backend``: the snapshotter's
    own database, "" if only the running daemon knows it. ``storage_driver``: of Docker, None if it makes no
    difference or is not known yet.
    """

    kind: str
    root: Setting | None
    containerd: Setting
    namespace: Setting
    snapshotter: Setting
    backend: str = ""
    storage_driver: Setting | None = None

    @classmethod
    def of_services(cls, identity: Mapping[str, str]) -> Self:
        """Settings of services passed by the caller. ``identity``: see `Containerd.identity`."""
        place, namespace, snapshotter = (
            Setting(identity.get(name, "")) for name in ("place", "namespace", "snapshotter")
        )
        return cls("", None, place, namespace, snapshotter)

    def settings(self) -> Iterator[tuple[str, Setting]]:
        """The known settings, by name."""
        if self.root is not None:
            yield "root", self.root
        yield "containerd", self.containerd
        yield "namespace", self.namespace
        yield "snapshotter", self.snapshotter
        if self.storage_driver is not None:
            yield "storage_driver", self.storage_driver

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        document: dict[str, Any] = {"kind": self.kind, "root": None, "storage_driver": None}
        for name, setting in self.settings():
            document[name] = {**named_text("value", setting.value), "origin": setting.origin}
        return document
