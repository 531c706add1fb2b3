"""Fixtures: services with parties of their own, and admins."""

import pytest


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    environ["HOLD_SOURCES"] = "risk-engine=risk,wallet-service=wallet"
    environ["KYC_INITIATE_LIMIT_PER_HOUR"] = "1000"
    return environ
