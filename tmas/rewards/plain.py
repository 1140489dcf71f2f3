"""The text of a solution as a reader sees it, for the judge and for the comparison with its quotes.

A judge can read a step that contains invisible characters, or look-alike letters of other alphabets. But code would not
find the judge's quote of such a step, and the bonus would be masked.
"""

from __future__ import annotations

import unicodedata

_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԚԜаеѕіјорсухԁԛԝһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲ",
    "ABESIJKMHOPCTYXQWaesijopcyxdqwhlABEZHIKMNOPTYXoc",
)


def plain(text: str) -> str:
    """Return ``text`` in Unicode's NFKC form, without format characters (Cf) and with Latin letters for look-alikes."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return visible.translate(_LOOKALIKES)
