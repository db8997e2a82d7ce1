"""A proxy between a client and containerd: records every call, and can fail, lose or delay some."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

STREAMS = ("Snapshots.List", "Content.List")
READING = {
    "Version.Version",
    "Namespaces.List",
    "Leases.List",
    "Leases.ListResources",
    "Snapshots.List",
    "Content.List",
}

Fault = Callable[[str, int], grpc.StatusCode | None]
"""Called with the name of a call and the number of earlier ones; returns the code to answer with, or None."""


class Proxy:
    """A server on a socket of its own (`address`) that passes all calls on to the one at `target`.

    `fault` is asked before a call is passed on; with `lose`, after it: then the call has its effect.
    """

    def __init__(self, target: str, fault: Fault | None = None, *, lose: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bkm", dir="/tmp")
        self.address = str(Path(self._directory.name) / "p")
        self.calls: Counter[str] = Counter()
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._fault = fault or (lambda name, number: None)
        self._lose = lose
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
        ]
        self._channel = grpc.insecure_channel(f"unix:{target}", options=options)
        self._server = grpc.server(ThreadPoolExecutor(64), options=options)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self._server.add_insecure_port(f"unix:{self.address}")

    def __enter__(self) -> Proxy:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
        self._channel.close()
        self._directory.cleanup()

    @property
    def changing_calls(self) -> int:
        return sum(count for name, count in self.calls.items() if name not in READING)

    def answer(self, path: str, name: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._lock:
            number = self.calls[name]
            self.calls[name] += 1
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            code = self._fault(name, number)
            if code is not None and not self._lose:
                context.abort(code, "said the proxy")
            yield from self._pass_on(path, name, request, context)
            if code is not None:
                context.abort(code, "said the proxy, and lost the answer")
        finally:
            with self._lock:
                self._in_flight -= 1

    def _pass_on(
        self, path: str, name: str, request: bytes, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        metadata = [pair for pair in context.invocation_metadata() if pair[0].startswith("containerd-")]
        try:
            if name in STREAMS:
                yield from self._channel.unary_stream(path)(request, metadata=metadata)
            else:
                yield self._channel.unary_unary(path)(request, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        path: str = details.method
        service, method = path.rsplit("/", 1)
        name = f"{service.rpartition('.')[2]}.{method}"

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._proxy.answer(path, name, request, context)

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            # To its end, so that what follows the answer is done, too.
            (answer,) = stream(request, context)
            return answer

        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


def always(name: str, code: grpc.StatusCode) -> Fault:
    """All calls of this name fail."""
    return lambda called, number: code if called == name else None


def nth(name: str, numbers: set[int], code: grpc.StatusCode) -> Fault:
    """The calls of this name with these numbers fail."""
    return lambda called, number: code if called == name and number in numbers else None


def every(n: int, code: grpc.StatusCode) -> Fault:
    """Every n-th of all calls fails."""
    count = itertools.count(1)
    return lambda called, number: code if next(count) % n == 0 else None


def once(name: str, at: int, do: Callable[[], object]) -> Fault:
    """Does something, once, before the call of this name with this number is passed on."""

    def fault(called: str, number: int) -> None:
        if (called, number) == (name, at):
            do()

    return fault


def slow(seconds: float) -> Fault:
    def fault(called: str, number: int) -> None:
        time.sleep(seconds)

    return fault
