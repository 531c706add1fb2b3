"""Several parties at one account, in any order: status, events and counters are those of a model, always."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.trail import events_of
from tests.verbs.world import RULES, World, opened
from usercore import telemetry
from usercore.accounts import actions as accounts
from usercore.accounts.actions import Close, Freeze, Unfreeze
from usercore.errors import AccountNotActive, ApiError, InvalidTransition, KycAttemptsExhausted
from usercore.events import AuthAccountDeactivated, now
from usercore.idempotency import Answer
from usercore.kyc.actions import Heard, apply
from usercore.lapses.actions import end_validity
from usercore.lifecycle.actions import apply_auth_events
from usercore.outbox import SYSTEM, Actor
from usercore.plugins import Evidence, RejectionCode, Standing
from usercore.profiles.profile import ProfilePatch
from usercore.users.actions import create_user
from usercore.verification.actions import Initiate, initiate

PARTIES = ("risk", "wallet", "internal")
SOURCES = (*PARTIES, "auth", "kyc")
CODES: Mapping[Standing, RejectionCode] = {Standing.REJECTED: "face_mismatch", Standing.FRAUD: "fraud"}
"""A rejection for fraud is fraud, whatever its standing."""
FROZEN, UNFROZEN = "user.frozen.v1", "user.unfrozen.v1"
SUSPENDED, CLOSED, VERIFIED = "user.suspended.v1", "user.closed.v1", "user.verified.v1"


class Account:
    """What the documents say: docs/accounts.md, and docs/kyc.md of one step."""

    def __init__(self) -> None:
        self.freezes: set[str] = set()
        self.suspended = False
        self.activated = False
        self.closed = False
        self.case: str | None = None
        self.verified = False
        self.events: Counter[str] = Counter()

    @property
    def status(self) -> str:
        if self.closed:
            return "closed"
        if self.freezes:
            return "frozen"
        if self.suspended:
            return "suspended"
        return "active" if self.activated else "pending"

    def moves(self, before: str) -> None:
        """What consumers are told of the way from one status to another."""
        after = self.status
        if after == before:
            return
        if after == "closed":
            self.events[CLOSED] += 1
            return
        self.events[UNFROZEN] += before == "frozen"
        self.events[FROZEN] += after == "frozen"
        self.events[SUSPENDED] += after == "suspended"

    def falls(self) -> None:
        """The tier is taken back."""
        self.verified = False


class Machine(RuleBasedStateMachine):
    """One account, of which this says what should be and the service what is."""

    environ: Mapping[str, str]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._model = Account()
        self._user = uuid4()
        self._attempt: UUID | None = None
        self._deactivations: list[AuthAccountDeactivated] = []
        self._said = 0
        self._frozen_before = _frozen_total()
        self._world: World = self._runner.run(self._stack.enter_async_context(opened(self.environ)))

    def teardown(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def _does(self, verb: Coroutine[Any, Any, object]) -> object:
        return self._runner.run(verb)

    def _tries(self, verb: Coroutine[Any, Any, object], refusal: type[ApiError]) -> None:
        """The verb of an account that does not allow it."""
        try:
            self._does(verb)
        except refusal:
            return
        raise AssertionError(f"{refusal.code} was expected")

    @initialize()
    def begins(self) -> None:
        w = self._world
        person = ProfilePatch(
            first_name="Asha",
            last_name="Rao",
            date_of_birth="1990-01-02",
            pan_number=_pan(self._user),
        )
        self._does(create_user(w.db, w.keyring, self._user, None, SYSTEM))
        self._does(w.writer.update(self._user, person, SYSTEM))

    @rule(source=st.sampled_from(PARTIES))
    def a_party_freezes(self, source: str) -> None:
        verb = self._freeze(source)
        if self._model.closed:
            return self._tries(verb, InvalidTransition)
        self._does(verb)
        before = self._model.status
        self._model.freezes.add(source)
        return self._model.moves(before)

    @rule(sources=st.sets(st.sampled_from(PARTIES), min_size=2))
    def parties_freeze_at_once(self, sources: set[str]) -> None:
        if self._model.closed:
            return

        async def together() -> None:
            await asyncio.gather(*(self._freeze(source) for source in sorted(sources)))

        self._does(together())
        before = self._model.status
        self._model.freezes |= sources
        self._model.moves(before)

    @rule(source=st.sampled_from(SOURCES))
    def holds_are_lifted(self, source: str) -> None:
        w = self._world
        verb = accounts.unfreeze(w.db, w.keyring, self._user, Unfreeze("cleared"), source, _actor(source), None)
        if self._model.closed:
            return self._tries(verb, InvalidTransition)
        self._does(verb)
        before = self._model.status
        self._model.freezes.discard(source)
        if source == "kyc":
            self._model.suspended = False
        return self._model.moves(before)

    @rule()
    def auth_deactivates(self) -> None:
        event = AuthAccountDeactivated(event_id=uuid4(), occurred_at=now(), auth_id=self._user, reason="left")
        self._deactivations.append(event)
        before = self._model.status
        self._does(apply_auth_events(self._world.db, self._world.keyring, [], [event]))
        self._model.freezes.add("auth")
        self._model.moves(before)

    @precondition(lambda self: self._deactivations)
    @rule(number=st.integers(0, 9))
    def auth_says_it_again(self, number: int) -> None:
        event = self._deactivations[number % len(self._deactivations)]
        self._does(apply_auth_events(self._world.db, self._world.keyring, [], [event]))

    @precondition(lambda self: self._model.case is None and not self._model.verified)
    @rule()
    def a_verification_starts(self) -> None:
        if self._model.status in ("frozen", "closed"):
            self._tries(initiate(self._world.kyc, self._user, Initiate(), SYSTEM, None), AccountNotActive)
        else:
            self._attempt = self._started(again=False)
            self._model.case = "open"

    @precondition(lambda self: self._attempt is not None)
    @rule()
    def a_vendor_approves(self) -> None:
        self._hears(Standing.APPROVED)

    @precondition(lambda self: self._attempt is not None)
    @rule()
    def a_vendor_rejects(self) -> None:
        self._hears(Standing.REJECTED)

    @precondition(lambda self: self._attempt is not None)
    @rule()
    def a_vendor_finds_fraud(self) -> None:
        self._hears(Standing.FRAUD)

    def _hears(self, standing: Standing) -> None:
        assert self._attempt is not None
        self._said += 1
        evidence = Evidence(
            standing=standing,
            vendor_status="so",
            rejection_code=CODES.get(standing),
            checks={"pan": "passed"},
        )
        w, heard = self._world, Heard(self._attempt, "webhook", str(self._said), evidence)
        self._does(apply(w.db, w.keyring, RULES, self._attempt, heard, SYSTEM))
        self._model_of_a_verdict(standing)

    def _model_of_a_verdict(self, standing: Standing) -> None:
        model, before = self._model, self._model.status
        if model.case in ("fraud", "closed"):
            return
        if standing is Standing.FRAUD:
            model.falls()
            model.case = "fraud"
            model.freezes.add("kyc")
        elif standing is Standing.REJECTED and model.case in ("open", "approved"):
            model.falls()
            model.case = "rejected"
        elif standing is Standing.APPROVED and model.case == "open":
            model.case = "approved"
            model.verified = model.activated = True
            model.suspended = False
            model.events[VERIFIED] += 1
        model.moves(before)

    @precondition(lambda self: self._model.case == "rejected" and self._model.status not in ("frozen", "closed"))
    @rule()
    def they_try_again(self) -> None:
        try:
            self._attempt = self._started(again=True)
        except KycAttemptsExhausted:
            return
        self._model.case = "open"

    @precondition(lambda self: self._model.verified and self._model.case == "approved")
    @rule()
    def re_verification_is_overdue(self) -> None:
        async def passes() -> None:
            async with self._world.db.begin() as tx:
                await tx.execute("update kyc_checks set valid_until = now() where user_id = $1", self._user)
            await end_validity(self._world.db, RULES, self._user)

        before = self._model.status
        self._does(passes())
        self._model.falls()
        self._model.case = None
        self._model.suspended = True
        self._model.moves(before)

    @rule()
    def an_admin_closes(self) -> None:
        w = self._world
        self._does(accounts.close(w.db, w.keyring, RULES, self._user, Close("compliance"), _actor("admin"), None))
        before = self._model.status
        if self._model.case == "open":
            self._model.case = "closed"
        self._model.closed = True
        self._model.moves(before)

    @invariant()
    def they_agree(self) -> None:
        async def look() -> tuple[str, Counter[str]]:
            async with self._world.db.read() as conn:
                status = str(await conn.fetchval("select status::text from users where id = $1", self._user))
                events = await events_of(conn, self._user)
            return status, Counter(event["event_type"] for event in events)

        if self._runner.run(_exists(self._world, self._user)):
            status, events = self._runner.run(look())
            assert status == self._model.status
            watched = {name: events[name] for name in (FROZEN, UNFROZEN, SUSPENDED, CLOSED, VERIFIED)}
            assert watched == {name: self._model.events[name] for name in watched}
            assert _frozen_total() - self._frozen_before == self._model.events[FROZEN]

    def _started(self, *, again: bool) -> UUID:
        started = self._runner.run(initiate(self._world.kyc, self._user, Initiate(), SYSTEM, None, again=again))
        assert not isinstance(started, Answer)
        return started.case.case_id

    def _freeze(self, source: str) -> Coroutine[Any, Any, Answer]:
        w = self._world
        return accounts.freeze(w.db, w.keyring, self._user, Freeze("risk_review"), source, _actor(source), None)


async def _exists(world: World, user: UUID) -> bool:
    async with world.db.read() as conn:
        return bool(await conn.fetchval("select count(*) from users where id = $1", user))


def _actor(source: str) -> Actor:
    return Actor(kind="internal", id=uuid4(), client=source)


def _pan(user: UUID) -> str:
    """Its own, as a PAN is one account's."""
    letters = "".join(chr(ord("A") + byte % 26) for byte in user.bytes[:5])
    return f"{letters[:3]}P{letters[3]}{user.int % 10_000:04}{letters[4]}"


def _frozen_total() -> float:
    text = telemetry.metrics.render()[0].decode()
    lines = (line for line in text.splitlines() if line.startswith("user_frozen_total{"))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_the_service_is_what_the_model_says(environ: dict[str, str]) -> None:
    class Here(Machine):
        pass

    Here.environ = environ
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
        ),
    )
