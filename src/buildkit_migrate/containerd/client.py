"""Client of a running containerd: calls with deadlines and retries, and errors that name the call.

Connection, namespace header and status codes: spec containerd-services, sections 1 and 2.
"""

from __future__ import annotations

import asyncio
import copy
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol.methods import VERSION, Method
from buildkit_migrate.errors import ContainerdCallError, ContainerdUnavailableError

__all__ = ["Client", "unless_gone"]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Row = TypeVar("Row")

_OPTIONS: Final = (
    # The server sends messages of up to 16 MiB; gRPC for Python accepts 4 by default.
    ("grpc.max_receive_message_length", 32 << 20),
    # Reconnect quickly to a restarted daemon; by default gRPC would wait longer and longer.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Two clients in one process must not share a connection: closing one would end the other's calls.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.default_authority", "localhost"),
)

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_DEADLINES_MISSED: Final = 3
"""A call fails once this many attempts have missed their deadline."""


class Client:
    """One namespace of the containerd at ``address``, the path of a Unix socket. For use in one event loop.

    ``timeout``: seconds that a call, or the next message of a stream, may take. ``connect_timeout``: seconds
    that the daemon may be unavailable before a call fails, at the start as well as later.
    """

    def __init__(self, address: str, namespace: str, *, timeout: float, connect_timeout: float) -> None:
        self.address = address
        self.namespace = namespace
        self._timeout = timeout
        self.connect_timeout = connect_timeout
        self._metadata = (("containerd-namespace", namespace),)
        self._channel: grpc.aio.Channel | None = None

    def within(self, namespace: str) -> Client:
        """A client for another namespace on the same, open connection. Only the original is to be closed."""
        other = copy.copy(self)
        other.namespace = namespace
        other._metadata = (("containerd-namespace", namespace),)
        return other

    async def open(self) -> None:
        """Connects and requests the version. Raises ContainerdUnavailableError, ContainerdCallError."""
        retry = _Retry(self, VERSION, b"")
        while (refusal := self._refusal()) is not None:
            await retry.after_refusal(refusal)
        self._channel = grpc.aio.insecure_channel(f"unix:{self.address}", options=_OPTIONS)
        await self.call(VERSION, api.Empty())

    def _refusal(self) -> str | None:
        """Why nobody can be reached, by trying the socket itself: gRPC's own errors are less clear."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.address)
            except PermissionError as error:
                raise ContainerdUnavailableError(
                    f"containerd at {self.address}: {error.strerror}",
                    address=self.address,
                    hint="run the command as root, or as a user who may use this socket",
                ) from error
            except OSError as error:
                return error.strerror or str(error)
        return None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def call(
        self, method: Method[Request, Response], request: Request, subject: bytes = b""
    ) -> Response:
        """Makes a call. It may reach the daemon more than once, so it must be idempotent.

        ``subject``: what the call is about, for errors. Raises ContainerdUnavailableError,
        ContainerdCallError.
        """
        assert self._channel is not None
        send = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        retry = _Retry(self, method, subject)
        while True:
            try:
                response: Response = await send(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                await retry.after(error)
            else:
                return response

    async def rows(
        self,
        method: Method[Request, Response],
        request: Request,
        rows_of: Callable[[Response], Iterable[Row]],
    ) -> list[Row]:
        """All rows of a stream. If the daemon goes away meanwhile, the stream is started again."""
        retry = _Retry(self, method, b"")
        while True:
            rows: list[Row] = []
            try:
                async for response in self._stream(method, request):
                    rows.extend(rows_of(response))
                    retry.progress(len(rows))
            except grpc.aio.AioRpcError as error:
                await retry.after(error)
            else:
                return rows

    async def _stream(self, method: Method[Request, Response], request: Request) -> AsyncIterator[Response]:
        """The deadline applies to each message: a long stream may take as long as it needs."""
        assert self._channel is not None
        call = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )(request, metadata=self._metadata)
        try:
            while True:
                try:
                    response: Any = await asyncio.wait_for(call.read(), self._timeout)
                except TimeoutError:
                    raise _missed_deadline() from None
                if response is grpc.aio.EOF:
                    return
                yield response
        finally:
            call.cancel()


def _missed_deadline() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(
        grpc.StatusCode.DEADLINE_EXCEEDED, nothing, nothing, details="no answer in time"
    )


class _Retry:
    """Decides after each failure of a call whether to try again."""

    def __init__(self, client: Client, method: Method[Request, Response], subject: bytes) -> None:
        self._client = client
        self._method = method.name
        self._subject = subject
        self._began: float | None = None  # start of the outage
        self._pause = _FIRST_PAUSE
        self._missed = 0
        self._rows = 0

    def progress(self, rows: int) -> None:
        """A stream has received this many rows. If that is more than before, the previous outage is over.

        A daemon that goes away at the same point each time makes no progress.
        """
        if rows > self._rows:
            self._rows = rows
            self._began = None
            self._pause = _FIRST_PAUSE
            self._missed = 0

    async def after(self, error: grpc.aio.AioRpcError) -> None:
        """Returns when it is time to try again; otherwise raises the error for the user."""
        code, detail = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            await self.after_refusal(detail)
            return
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._missed += 1
            if self._missed < _DEADLINES_MISSED:
                return
        about = f" for {self._subject.decode(errors='backslashreplace')}" if self._subject else ""
        raise ContainerdCallError(
            f"containerd at {self._client.address}: {self._method}{about} failed with {code.name}: {detail}",
            method=self._method,
            code=code.name,
            detail=detail,
            subject=self._subject,
        ) from error

    async def after_refusal(self, why: str) -> None:
        """The same if the daemon is unavailable, which may last a while: perhaps it is being restarted."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if now - self._began > self._client.connect_timeout:
            raise ContainerdUnavailableError(
                f"containerd at {self._client.address} does not answer: {why}", address=self._client.address
            )
        # Random pauses, so that not all calls come at once when the daemon is back.
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


async def unless_gone(call: Awaitable[object]) -> None:
    """Awaits a call on something that may not exist."""
    try:
        await call
    except ContainerdCallError as error:
        if error.code != "NOT_FOUND":
            raise
