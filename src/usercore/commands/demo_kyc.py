"""The part of the demo in which vendors verify the user: HyperVerge to tier_1, Signzy to tier_2."""

import os
from typing import TYPE_CHECKING, Any

import aiohttp

from usercore.devstack.environment import checkout, environment

if TYPE_CHECKING:
    from usercore.commands.demo import Demo


async def run(demo: "Demo") -> None:
    """Each step: start it, look at the hosted page, finish it as the person would, and wait for the webhook."""
    urls = environment(checkout() / ".dev") | os.environ
    for tier, vendor, checks in (
        ("tier_1", "hyperverge", "PAN and selfie"),
        ("tier_2", "signzy", "Aadhaar and address"),
    ):
        sandbox = urls[f"{vendor.upper()}_SANDBOX_URL"]
        case = await _start(demo, tier, vendor)
        async with aiohttp.ClientSession() as browser, browser.get(case["redirect_url"]) as page:
            demo.expect("the vendor's page", (page.status, page.content_type), (200, "text/html"))
        demo.done(f"POST /v1/kyc/initiate → 201, {vendor} for {checks}; its page opens in a browser")
        identity = {"name": "Asha Verma", "date_of_birth": "1994-08-12", "aadhaar_last4": "4321"}
        finished = {"reference": case["case_id"], "outcome": "approve", "identity": identity}
        async with (
            aiohttp.ClientSession() as person,
            person.post(f"{sandbox}/_control/complete", json=finished) as done,
        ):
            demo.expect("the person finishes", done.status, 200)
        status = await _verified(demo, tier)
        passed = sorted(check["check"] for check in status["checks"] if check["status"] == "passed")
        demo.done(f"the person finishes, the webhook comes → {tier}, passed: {', '.join(passed)}")
    status, _, me = await demo.call("GET", "/v1/kyc/status")
    demo.expect(
        "what comes next", (status, me["next_tier"]["tier"], me["limits"]["level"]), (200, "tier_3", "enhanced")
    )
    verified = await demo.events("user.verified.v1", 2)
    demo.expect("user.verified.v1", [event["kyc_tier"] for event in verified], ["tier_1", "tier_2"])
    await demo.events("user.kyc.initiated.v1", 2)
    demo.done("on Kafka: user.kyc.initiated.v1 and user.verified.v1 for both tiers")


async def _start(demo: "Demo", tier: str, vendor: str) -> Any:
    asked = {"target_tier": tier, "redirect_url": "https://app.example.in/kyc"}
    status, _, case = await demo.call("POST", "/v1/kyc/initiate", asked)
    demo.expect(f"the start of {tier}", (status, case.get("vendor")), (201, vendor))
    return case


async def _verified(demo: "Demo", tier: str) -> Any:
    found: dict[str, Any] = {}

    async def there() -> bool:
        nonlocal found
        _, _, found = await demo.call("GET", "/v1/kyc/status")
        return found["kyc_tier"] == tier

    await demo.eventually(there, f"the user reaches {tier}")
    return found
