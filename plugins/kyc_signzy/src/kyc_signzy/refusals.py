"""What Signzy's errors mean: from status and text to the host's errors. The texts here are the only ones.

LoopBack writes `{"error": {"message": …}}` and the gateway in front, Kong, `{"message": …}`. Both are read.
"""

import re
from typing import Any

from kyc_signzy.reading import a_text, an_object
from usercore.plugins import (
    Response,
    VendorAuthError,
    VendorError,
    VendorProtocolError,
    VendorUnavailable,
)

NOT_YET = re.compile(r"not completed|consent journey")
"""Of a consent that the person has not given yet. It comes with a 401, which is a bad token's status too, or a 404."""
LIMITED = re.compile(r"(rate|request)s?[ -]limit|too many requests")
"""Signzy lists no 429, and says of 403 that it is also for limits of requests; this text of it is a guess."""
BANK_INPUT = re.compile(r"beneficiary|ifsc")
"""What a refusal names that is about the account, and not about us: a guess, as none is published."""


def message(response: Response) -> str:
    """The text of an error in lower case; empty when it has none that can be read."""
    try:
        body = response.json(dict[str, Any])
    except VendorProtocolError:
        return ""
    return (a_text(an_object(body.get("error")).get("message")) or a_text(body.get("message")) or "").lower()


def refusal(response: Response) -> VendorError:
    """The error that a status other than 200 stands for, when it is none of the cases below."""
    if response.status == 403 and LIMITED.search(message(response)):
        return VendorUnavailable()
    # 403: the account is not entitled to the service, or out of credits.
    return VendorAuthError() if response.status in (401, 403) else VendorProtocolError()


def is_not_yet(response: Response) -> bool:
    """Whether the person has still to consent."""
    return response.status in (401, 404) and NOT_YET.search(message(response)) is not None


def is_about_the_account(response: Response) -> bool:
    """Whether a bank account's verification was refused for what the person gave us."""
    return response.status in (400, 422) and BANK_INPUT.search(message(response)) is not None
