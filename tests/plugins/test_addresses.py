"""Which addresses a vendor may have, and that the others are not connected to."""

import pytest

from usercore.plugins.addresses import is_allowed


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public(text: str) -> None:
    assert is_allowed(text, loopback=False)
    assert is_allowed(text, loopback=True)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_loopback(text: str) -> None:
    assert not is_allowed(text, loopback=False)
    assert is_allowed(text, loopback=True)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a00:1::1",
        "2001:db8::1",
        "not an address",
        "",
    ],
)
def test_private(text: str) -> None:
    assert not is_allowed(text, loopback=False)
    assert not is_allowed(text, loopback=True)
