"""The golden cases of bridge/conformance, through the host's codec: it decides as every bridge does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import decode_value, encode_value
from tests.bridge.test_conformance import CASES, buffers_in_order, same, wire


@pytest.mark.parametrize(("file", "case"), CASES, ids=[f"{file}-{case['name']}" for file, case in CASES])
def test_golden_case(file: str, case: dict[str, Any]) -> None:
    data, buffers = wire(case)
    if case.get("refused"):
        with pytest.raises(EncodingError):
            decode_value(data, buffers)
        return
    back = encode_value(decode_value(data, buffers))
    sent, got = json.loads(data), json.loads(back.json)
    assert same(buffers_in_order(got, [bytes(b) for b in back.buffers]), buffers_in_order(sent, buffers))
