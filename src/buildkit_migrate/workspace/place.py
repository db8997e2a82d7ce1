"""Where a worker's containerd is and what BuildKit uses in it, each with who says so.

A wrong namespace makes every record look broken; what is worked on, and why, begins every plan.
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
    """Of one worker. ``kind``: "OCI" or "containerd", "" if services of one's own are worked on.

    ``root``: BuildKit's, None if unknown. ``containerd``: socket or database. ``backend``: the snapshotter's
    own database, "" if only the running daemon knows it.
    """

    kind: str
    root: Setting | None
    containerd: Setting
    namespace: Setting
    snapshotter: Setting
    backend: str = ""

    @classmethod
    def of_services(cls, identity: Mapping[str, str]) -> Self:
        """That of services which were given as arguments; ``identity``: see `Containerd.identity`."""
        place, namespace, snapshotter = (
            Setting(identity.get(name, "")) for name in ("place", "namespace", "snapshotter")
        )
        return cls("", None, place, namespace, snapshotter)

    def settings(self) -> Iterator[tuple[str, Setting]]:
        """What is known of it, by name."""
        if self.root is not None:
            yield "root", self.root
        yield "containerd", self.containerd
        yield "namespace", self.namespace
        yield "snapshotter", self.snapshotter

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        document: dict[str, Any] = {"kind": self.kind, "root": None}
        for name, setting in self.settings():
            document[name] = {**named_text("value", setting.value), "origin": setting.origin}
        return document
