"""Fixtures of the key management services."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.pii.kms_stands import Bao, bao_server


@pytest.fixture(scope="session")
def bao(servers_folder: Path) -> Generator[Bao]:
    with bao_server(servers_folder / "bao") as bao:
        yield bao
