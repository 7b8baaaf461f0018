"""Carry a conversation over HTTP: read the request, wait as long as it says, send or cut off its answer."""

import asyncio
import contextlib
import socket
import struct

from aiohttp import web

from deploy.stripe_simulator.conversation import Call, Conversation, Cut, Query, answer_get, answer_post
from deploy.stripe_simulator.operation import Operation
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.wire import Answer

BODY_MAX_BYTES = 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: closing sends RST instead of FIN


async def carry_get(simulator: Simulator, request: web.Request, query: Query) -> web.StreamResponse:
    """Answer a GET."""
    call = Call(
        path=request.path,
        target=request.match_info.get("id", ""),
        headers=request.headers,
        query=request.rel_url.raw_query_string,
    )
    return await _carry(request, answer_get(simulator, call, query))


async def carry_post(simulator: Simulator, request: web.Request, operation: Operation) -> web.StreamResponse:
    """Answer a POST or a DELETE."""
    call = Call(
        path=request.path,
        target=request.match_info.get("id", ""),
        headers=request.headers,
        body=await _body(request),
        content_type=request.content_type,
    )
    return await _carry(request, answer_post(simulator, call, operation))


async def _body(request: web.Request) -> bytes | None:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


async def _carry(request: web.Request, conversation: Conversation) -> web.StreamResponse:
    answer = await _finished(conversation)
    if isinstance(answer, Cut):
        _disconnect(request, reset=answer is Cut.RESET)
        return web.Response()
    return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


async def _finished(conversation: Conversation) -> Answer | Cut:
    with contextlib.closing(conversation):
        while True:
            try:
                delay_s = next(conversation)
            except StopIteration as end:
                answer: Answer | Cut = end.value
                return answer
            if delay_s > 0:  # not even a turn of the event loop when there is nothing to wait for
                await asyncio.sleep(delay_s)


def _disconnect(request: web.Request, *, reset: bool) -> None:
    """Close the connection without a byte of answer, by RST if `reset`."""
    if (transport := request.transport) is None:
        return
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()
