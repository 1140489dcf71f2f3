"""Replies of scripted judges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_CODE = re.compile(r'"code", with exactly the text (\w+)')
"""How ``judge_code.jinja`` states the code."""


def code_in(body: Mapping[str, Any]) -> str:
    """The code in the prompt of the request ``body``; "" if it has none."""
    codes: list[str] = _CODE.findall(body["messages"][-1]["content"])
    return codes[-1] if codes else ""


def with_code(body: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """The ``verdict`` as JSON, with the code of the request ``body``."""
    return json.dumps({"code": code_in(body), **verdict})
