"""The field cipher's seam: AES-256-GCM under one key, from `cryptography` or from pycryptodome, byte for byte alike."""

from collections.abc import Callable
from typing import Literal, Protocol

from Crypto.Cipher import AES
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from usercore.errors import OpenFailed

CipherName = Literal["cryptography", "pycryptodome"]

KEY_BYTES = 32
NONCE_BYTES = 12  # the only length that NIST SP 800-38D uses as it is; pycryptodome's default would be 16
TAG_BYTES = 16

# Both libraries would take other lengths without a word: a key of 16 bytes gives AES-128.
_BAD_KEY = "an AES-256 key has 32 bytes"
_BAD_NONCE = "a nonce has 12 bytes"


class Cipher(Protocol):
    """One key. Random nonces are good for 2**32 messages under it (SP 800-38D §8.3)."""

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext with the tag of 16 bytes after it."""
        ...

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Raises OpenFailed("corrupt") and gives nothing when the tag does not fit."""
        ...


CipherFactory = Callable[[bytes], Cipher]


class CryptographyCipher:
    """OpenSSL through `cryptography`: about 1 µs for a field. The default."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(_BAD_KEY)
        self._aead = AESGCM(key)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(_BAD_NONCE)
        return self._aead.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(_BAD_NONCE)
        try:
            return self._aead.decrypt(nonce, ciphertext, aad)
        except InvalidTag:
            raise OpenFailed("corrupt") from None


class PycryptodomeCipher:
    """pycryptodome's own code: fifty to a hundred times slower, for who must not depend on OpenSSL."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(_BAD_KEY)
        self._key = key

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(_BAD_NONCE)
        gcm = AES.new(self._key, AES.MODE_GCM, nonce=nonce, mac_len=TAG_BYTES)
        gcm.update(aad)
        ciphertext, tag = gcm.encrypt_and_digest(plaintext)
        return ciphertext + tag

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(_BAD_NONCE)
        if len(ciphertext) < TAG_BYTES:
            raise OpenFailed("corrupt")
        gcm = AES.new(self._key, AES.MODE_GCM, nonce=nonce, mac_len=TAG_BYTES)
        gcm.update(aad)
        try:
            return gcm.decrypt_and_verify(ciphertext[:-TAG_BYTES], ciphertext[-TAG_BYTES:])
        except ValueError:
            raise OpenFailed("corrupt") from None


_FACTORIES: dict[CipherName, CipherFactory] = {"cryptography": CryptographyCipher, "pycryptodome": PycryptodomeCipher}


def cipher(name: CipherName) -> CipherFactory:
    return _FACTORIES[name]
