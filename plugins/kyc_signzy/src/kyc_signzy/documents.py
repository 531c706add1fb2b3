"""The files that Signzy's sandbox keeps: small, made up, and what they say they are."""

import struct
from collections.abc import Mapping

_QUANTISATION = b"\0" + b"\1" * 64
_FRAME = struct.pack(">BHHBBBB", 8, 8, 8, 1, 1, 0x11, 0)  # 8 by 8 grey pixels
# One code of one bit each: no difference, end of block.
_TABLES = (b"\x00\x01" + b"\0" * 15 + b"\0", b"\x10\x01" + b"\0" * 15 + b"\0")
_SCAN = b"\1\1\0\0\x3f\0"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jpeg() -> bytes:
    """A grey picture."""
    parts = [
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        _segment(0xDB, _QUANTISATION),
        _segment(0xC0, _FRAME),
        *(_segment(0xC4, table) for table in _TABLES),
        _segment(0xDA, _SCAN),
        b"\x3f",
        b"\xff\xd9",
    ]
    return b"".join(parts)


def _pdf() -> bytes:
    """An empty page."""
    bodies = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
    )
    text, places = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(bodies, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    return text + b"xref\n0 4\n0000000000 65535 f \n%strailer\n<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        rows,
        len(text),
    )


FILES: Mapping[str, tuple[str, bytes]] = {
    "photo.jpeg": ("image/jpeg", _jpeg()),
    "aadhaar.jpeg": ("image/jpeg", _jpeg()),
    "aadhaar.pdf": ("application/pdf", _pdf()),
    "aadhaar.xml": ("application/xml", b"<OfflinePaperlessKyc/>"),
}
"""Content type and content."""
