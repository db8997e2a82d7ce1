"""The client's retries, against a server whose streams break off where the test says."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from buildkit_migrate.containerd.client import Client
from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol.methods import LIST_CONTENT, VERSION
from buildkit_migrate.errors import ContainerdUnavailableError

CONNECT_TIMEOUT = 0.4  # seconds
PAGES = 5


class Server(grpc.GenericRpcHandler):
    """Lists blobs, one per message. ``pages_until_outage``: messages before an attempt fails; None: all."""

    def __init__(self, pages_until_outage: Callable[[int], int | None]) -> None:
        self.attempts = 0
        self._pages_until_outage = pages_until_outage

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if details.method == VERSION.path:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
        assert details.method == LIST_CONTENT.path
        return grpc.unary_stream_rpc_method_handler(self._list)

    def _list(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        pages = self._pages_until_outage(self.attempts)
        self.attempts += 1
        for number in range(PAGES):
            if number == pages:
                context.abort(grpc.StatusCode.UNAVAILABLE, "is being restarted")
            time.sleep(CONNECT_TIMEOUT / 4)
            yield api.ListContentResponse(info=[api.BlobInfo(digest=b"%d" % number)]).SerializeToString()


def list_digests(server: Server) -> list[bytes]:
    async def ask(address: str) -> list[bytes]:
        client = Client(address, "buildkit", timeout=5, connect_timeout=CONNECT_TIMEOUT)
        await client.open()
        try:
            return await client.rows(
                LIST_CONTENT, api.ListContentRequest(), lambda answer: [blob.digest for blob in answer.info]
            )
        finally:
            await client.close()

    with tempfile.TemporaryDirectory(prefix="bkm", dir="/tmp") as directory:
        listening = grpc.server(ThreadPoolExecutor(4))
        listening.add_generic_rpc_handlers((server,))
        listening.add_insecure_port(f"unix:{directory}/s")
        listening.start()
        try:
            return asyncio.run(ask(f"{directory}/s"))
        finally:
            listening.stop(0).wait()


def test_each_short_outage_of_a_long_stream_gets_the_full_timeout() -> None:
    server = Server(lambda attempt: attempt + 1 if attempt < PAGES - 1 else None)
    assert list_digests(server) == [b"%d" % number for number in range(PAGES)]
    assert server.attempts == PAGES


def test_daemon_that_always_fails_at_the_same_place_is_given_up() -> None:
    server = Server(lambda attempt: 2)
    with pytest.raises(ContainerdUnavailableError, match="is being restarted"):
        list_digests(server)
    assert server.attempts > 1
