"""HyperVerge's sandbox: `python -m kyc_hyperverge.sandbox --port N` speaks its wire format on loopback."""

import base64
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import msgspec
from aiohttp import web

from kyc_hyperverge import answers
from kyc_hyperverge.answers import envelope, failed
from kyc_hyperverge.reading import a_date, a_text
from usercore.testing.control import Case, Outcome, Reading
from usercore.testing.delivery import Message
from usercore.testing.pages import Step
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import main

WRONG_KEY = "wrong-key"
"""An appKey that is not accepted; any other is."""
EVENTS = ("FINISH_TRANSACTION_WEBHOOK", "MANUAL_REVIEW_STATUS_UPDATE", "INTERMEDIATE_TRANSACTION_WEBHOOK")
FAILURES = (
    (500, "Internal Server Error"),
    (503, "Server busy"),
    (429, "configured number of transactions per minute exceeded"),
)
"""The errors of which nobody knows when they come, in turn. The texts of the last two are ours."""
FLAGS: Mapping[str, tuple[str, ...]] = {
    "/v1/output": ("sendReviewDetails", "sendDebugInfo", "sendAllDebugInfo"),
    "/v1/link-kyc/results": (
        "sendFlag",
        "sendUserDetails",
        "sendDebugInfo",
        "sendFailureReason",
        "includePreviousAttempts",
    ),
    "/v1/link-kyc/start": ("validateWorkflowInputs", "allowEmptyWorkflowInputs", "forceCreateLink", "forceLaunchSDK"),
}
"""Fields that are `yes` or `no`."""
SHADES = {"pan.png": 200, "selfie.png": 120}


class HyperVergeSandbox(Sandbox):
    """Links, tokens, results, pictures, the webhook's subscription, and what is odd about them."""

    title = "HyperVerge"
    steps = (
        Step(
            title="Your PAN card",
            text="Hold the card into the frame. Make sure that nothing glares.",
            fields=("name", "date_of_birth", "pan_number"),
            button="Use this picture",
        ),
        Step(title="Your selfie", text="Look into the camera and keep still.", face=True, button="Take the selfie"),
    )
    # The status follows the last finish: a link opened again can turn auto_approved into user_cancelled.
    reopens = True

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._subscription: dict[str, Any] | None = None
        self._failures = 0
        if self.options.webhook_url is not None:
            self._subscribe("sandbox", {"webhookUrl": self.options.webhook_url, "events": list(EVENTS)})

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.post("/v1/link-kyc/start", self._start),
            web.post("/v2/auth/token", self._token),
            web.post("/login", self._login),
            web.post("/v1/output", self._output),
            web.post("/v1/link-kyc/results", self._logs),
            web.get("/images/{key}/{name}", self._image, allow_head=False),
            web.get("/api/v1/config", self._get_config, allow_head=False),
            web.post("/api/v1/config", self._post_config),
            web.put("/api/v1/config", self._put_config),
        )

    def failure(self) -> web.Response:
        status, text = FAILURES[self._failures % len(FAILURES)]
        self._failures += 1
        return failed(status, text)

    def message(self, case: Case, outcome: Outcome | None) -> Message | None:
        kind, body = answers.event(case, case.memory["app_id"], outcome)
        if self._subscription is None or kind not in self._subscription["events"]:
            return None
        return Message(event_id=body["eventId"], kind=kind, body=msgspec.json.encode(body))

    def webhook(self, case: Case) -> tuple[str | None, Mapping[str, str]]:
        # One address for the account: what the start call says of an address does not matter.
        if self._subscription is None:
            return None, {}
        return self._subscription["webhookUrl"], self._subscription["headers"]

    def returned(self, case: Case) -> Mapping[str, str]:
        return {"transactionId": case.reference, "status": answers.status_of(case, case.outcome)}

    # Link, token ----------------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        app_id = _app_id(request)
        body = await _body(request)
        # A transactionId that is known gets the same link: what HyperVerge does then is not documented.
        case = await self.open(
            _required(body, "transactionId"),
            _reading(body.get("inputs")),
            attempt_id=_required(body, "transactionId"),
            redirect_url=a_text(body.get("redirectUrl")),
            memory={
                "app_id": app_id,
                "workflow_id": _required(body, "workflowId"),
                "images": secrets.token_urlsafe(16),
            },
        )
        return web.json_response(envelope({"startKycUrl": self.page_url(request, case)}))

    async def _token(self, request: web.Request) -> web.Response:
        body = await _body(request)
        _check_key(body.get("appId"), body.get("appKey"))
        claims = {key: _required(body, key) for key in ("appId", "workflowId", "transactionId")}
        result = {"authToken": _jwt(claims)}
        return web.json_response({"status": "success", "statusCode": 200, "result": result})

    async def _login(self, request: web.Request) -> web.Response:
        body = await _body(request)
        _check_key(body.get("appId"), body.get("appKey"))
        result = {"token": "Bearer " + _jwt({"appId": _required(body, "appId")})}
        return web.json_response({"status": "success", "statusCode": "200", "result": result})

    # Results --------------------------------------------------------------------------------------------------------

    async def _output(self, request: web.Request) -> web.Response:
        _app_id(request)
        body = await _body(request)
        case = self.cases.get(_required(body, "transactionId"))
        if case is not None:
            await self.reach(case)
        if case is None or case.outcome is None:
            return failed(400, "TransactionId not found")
        return web.json_response(envelope(answers.output(case, body, _images(request, case))))

    async def _logs(self, request: web.Request) -> web.Response:
        _app_id(request)
        body = await _body(request)
        case = self.cases.get(_required(body, "transactionId"))
        if case is None:
            return failed(422, "TransactionId not found")
        await self.reach(case)
        result = answers.logs(case, body, case.memory["workflow_id"], _images(request, case))
        return web.json_response(envelope(result, transaction_id=case.reference))

    async def _image(self, request: web.Request) -> web.Response:
        key, name = request.match_info["key"], request.match_info["name"]
        if name not in SHADES or not any(case.memory["images"] == key for case in self.cases.values()):
            return web.Response(status=404)
        return web.Response(body=answers.image(SHADES[name]), content_type="image/png")

    # The webhook's subscription -------------------------------------------------------------------------------------

    async def _get_config(self, request: web.Request) -> web.Response:
        app_id = _app_id(request)
        found = self._subscription
        if found is None:
            return failed(400, "Webhook config not found")
        if "details" in request.query:
            shown = {"id": "1", "appId": app_id, "vendor": None, "webhookUrl": found["webhookUrl"]}
            shown |= {"createdAt": found["created"], "updatedAt": found["updated"], "events": found["events"]}
            return _config_answer([shown])
        return _config_answer(self._config(app_id, found))

    async def _post_config(self, request: web.Request) -> web.Response:
        app_id = _app_id(request)
        return _config_answer(self._config(app_id, self._subscribe(app_id, await _body(request))))

    async def _put_config(self, request: web.Request) -> web.Response:
        self._subscribe(_app_id(request), await _body(request))
        return _config_answer(1)

    def _config(self, app_id: str, found: Mapping[str, Any]) -> dict[str, Any]:
        # The casing is theirs, and another one in the read with details.
        shown = {"appId": app_id, "webhookUrl": found["webhookUrl"], "id": "1"}
        return shown | {"created_at": found["created"], "updated_at": found["updated"]}

    def _subscribe(self, app_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        events = body.get("events", list(EVENTS))
        headers = body.get("headers", {})
        if not isinstance(events, list) or not set(cast("list[str]", events)) <= set(EVENTS):
            raise _stop(422, f'"events" must be some of [{", ".join(EVENTS)}]')
        if not isinstance(headers, dict):
            raise _stop(422, '"headers" must be an object')
        self._subscription = {
            "webhookUrl": _required(body, "webhookUrl"),
            "events": cast("list[str]", events),
            "headers": {str(name): str(value) for name, value in cast("dict[Any, Any]", headers).items()},
            "created": (self._subscription or {"created": now})["created"],
            "updated": now,
        }
        return self._subscription


def _app_id(request: web.Request) -> str:
    """Who calls, by the headers, whose names come in any case. Raises 401."""
    app_id = request.headers.get("appId", "")
    _check_key(app_id, request.headers.get("appKey"))
    return app_id


def _check_key(app_id: object, key: object) -> None:
    if not app_id or not key or key == WRONG_KEY:
        raise _stop(401, "Missing/Invalid credentials")


async def _body(request: web.Request) -> dict[str, Any]:
    """Raises 422 for what is no object, and for a flag that is neither yes nor no."""
    try:
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
    except msgspec.MsgspecError:
        raise _stop(422, "Invalid request body") from None
    for flag in FLAGS.get(request.path, ()):
        if body.get(flag, "no") not in ("yes", "no"):
            raise _stop(422, f'"{flag}" must be one of [yes, no]')
    return body


def _required(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _stop(422, f'"{name}" is required')
    return value


def _stop(status: int, text: str) -> web.HTTPException:
    """Their envelope, raised."""
    answer = failed(status, text)
    kind = {401: web.HTTPUnauthorized, 422: web.HTTPUnprocessableEntity}[status]
    return kind(text=answer.text, content_type="application/json")


def _reading(inputs: object) -> Reading:
    """What the documents of a person say who is who they say they are."""
    given = cast("dict[str, Any]", inputs) if isinstance(inputs, dict) else {}
    return Reading(
        name=a_text(given.get("name")), date_of_birth=a_date(given.get("dob")), pan_number=a_text(given.get("pan"))
    )


def _images(request: web.Request, case: Case) -> str:
    return f"{request.url.origin()}/images/{case.memory['images']}"


def _config_answer(result: object) -> web.Response:
    return web.json_response({"statusCode": 200, "status": "success", "result": result})


def _jwt(claims: Mapping[str, str]) -> str:
    """A token of the form of theirs; nobody verifies it here."""
    parts = ({"alg": "RS256", "typ": "JWT"}, {**claims, "jti": str(uuid4())})
    coded = [base64.urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=").decode() for part in parts]
    return ".".join([*coded, secrets.token_urlsafe(32)])


if __name__ == "__main__":
    main(HyperVergeSandbox)
