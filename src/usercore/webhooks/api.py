"""HTTP of webhooks: /v1/kyc/webhook, open to everybody and believing nobody."""

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, raw_headers, request_id
from usercore.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    KeysUnavailable,
    MalformedWebhook,
    Unauthenticated,
)
from usercore.operations import ANY_MEDIA_TYPE, Access, operation
from usercore.webhooks import actions

LARGEST = 256 * 1024
"""Bytes. A vendor's largest message, a DigiLocker callback, has some 20 KiB."""


class Received(Struct, frozen=True):
    received: bool


_ERRORS = [BodyTooLarge, DatabaseUnavailable, KeysUnavailable, MalformedWebhook, Unauthenticated]
_RECEIVED = Received(True)


@post(
    "/v1/kyc/webhook/{vendor:str}",
    **operation(
        Access.NONE,
        "receiveWebhook",
        summary="A message of a KYC vendor",
        tag="webhooks",
        description="Authenticated by the vendor's configured scheme over the raw body. Repeats are answered alike.",
        errors=_ERRORS,
        response=_RECEIVED,
        media_types=ANY_MEDIA_TYPE,
    ),
    status_code=200,
    request_max_body_size=LARGEST,
)
async def receive_webhook(
    request: EdgeRequest, service: NamedDependency[Service], vendor: FromPath[str]
) -> JsonAnswer[Received]:
    return await _receive(request, service, vendor, None)


@post(
    "/v1/kyc/webhook/{vendor:str}/{token:str}",
    **operation(
        Access.NONE,
        "receiveAttemptWebhook",
        summary="A message of a KYC vendor about one attempt",
        tag="webhooks",
        description="As without a token, for vendors whose callbacks carry no authentication of their own: the last "
        "segment is the attempt's secret.",
        errors=_ERRORS,
        response=_RECEIVED,
        media_types=ANY_MEDIA_TYPE,
    ),
    status_code=200,
    request_max_body_size=LARGEST,
)
async def receive_attempt_webhook(
    request: EdgeRequest, service: NamedDependency[Service], vendor: FromPath[str], token: FromPath[str]
) -> JsonAnswer[Received]:
    return await _receive(request, service, vendor, token)


@post(
    "/v1/kyc/webhook",
    **operation(
        Access.NONE,
        "receiveAnyWebhook",
        summary="A message of whichever KYC vendor",
        tag="webhooks",
        description="Exactly one enabled vendor's scheme has to accept it.",
        errors=_ERRORS,
        response=_RECEIVED,
        media_types=ANY_MEDIA_TYPE,
    ),
    status_code=200,
    request_max_body_size=LARGEST,
)
async def receive_any_webhook(request: EdgeRequest, service: NamedDependency[Service]) -> JsonAnswer[Received]:
    return await _receive(request, service, None, None)


async def _receive(
    request: EdgeRequest, service: Service, vendor: str | None, token: str | None
) -> JsonAnswer[Received]:
    body = await request.body()
    await actions.receive(service.kyc, vendor, token, raw_headers(request), body, request_id(request))
    return JsonAnswer(_RECEIVED)


ROUTES = (receive_webhook, receive_attempt_webhook, receive_any_webhook)
