"""Fixtures of the key management services."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import get_args

import pytest

from tests.pii.kms_stands import Bao, LocalStand, Provider, Stand, aws_stand, bao_server, gcp_stand, vault_stand
from usercore.pii.kms import Kms


@pytest.fixture(scope="session")
def bao(servers_folder: Path) -> Generator[Bao]:
    with bao_server(servers_folder / "bao") as bao:
        yield bao


@pytest.fixture(params=get_args(Provider))
async def stand(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Stand]:
    if request.param == "local":
        yield LocalStand(tmp_path)
    elif request.param == "gcp-kms":
        async with gcp_stand() as gcp:
            yield gcp
    elif request.param == "aws-kms":
        async with aws_stand(monkeypatch.setenv) as aws:
            yield aws
    else:
        async with vault_stand(request.getfixturevalue("bao"), tmp_path) as vault:
            yield vault


@pytest.fixture
async def kms(stand: Stand) -> AsyncGenerator[Kms]:
    kms = stand.open()
    yield kms
    await kms.close()
