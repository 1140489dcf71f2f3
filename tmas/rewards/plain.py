"""The text of a solution as a reader sees it, for the judge and for the comparison with its quotes.

Invisible characters and letters of other alphabets that look like Latin ones would hide a step from code that a judge
can read, so that its quotes are not found and the bonus is masked.
"""

from __future__ import annotations

import unicodedata

_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԚԜаеѕіјорсухԁԛԝһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲ",
    "ABESIJKMHOPCTYXQWaesijopcyxdqwhlABEZHIKMNOPTYXoc",
)


def plain(text: str) -> str:
    """Return ``text`` in Unicode's NFKC form, without format characters (category Cf), in Latin letters if alike."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return visible.translate(_LOOKALIKES)
