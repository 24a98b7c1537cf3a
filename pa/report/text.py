"""Names from a user's disk as text that cannot control a page or a terminal, and numbers."""

from __future__ import annotations

import re
import zlib

# Control characters but the white space of HTML, marks that change the direction of what follows,
# halves of surrogate pairs (bytes of a file's name that are not UTF-8), and code points that are
# not characters.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)


def printable(text: object) -> str:
    r"""Return text in which characters that control a page or a terminal are written as codes.

    >>> printable("a\x1b[1m")
    'a\\u001b[1m'
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def one_line(text: object) -> str:
    """Return printable text with white space collapsed."""
    return " ".join(printable(text).split())


def identifier(name: str) -> str:
    """Return a name as an HTML id of letters, digits and hyphens.

    Names with other characters end in a checksum, so that their ids differ.
    """
    # Two names may have one slug ("a b", "a_b"), and HTML ids must differ.
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    if re.fullmatch(r"[a-z0-9/ -]*", name):
        return slug
    return f"{slug}-{zlib.crc32(name.encode('utf-8', 'surrogatepass')):08x}"


def between(interval: tuple[float, float] | None, form: str = ".2f", missing: str = "") -> str:
    """Return the ends of an interval in a format of numbers: "36.10 to 37.02"."""
    return missing if interval is None else " to ".join(f"{end:{form}}" for end in interval)
