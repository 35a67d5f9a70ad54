"""Tensors of torch, without torch: a stand-in has what the codecs ask of one.

The rows of the value table that need torch run where it is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snakepit_ray.errors import EncodingError
from tests.values.test_table import WAYS

from snakepit_bridge.values.failures import EncodingError as BridgeError  # isort: skip


class Tensor:
    """Refuses numpy() until it is detached and on the CPU, as a real one does."""

    def __init__(self, done: tuple[str, ...] = (), **about: Any) -> None:
        self.done = done
        self.about = about
        self.names = about.get("names", (None,))
        self.layout = about.get("layout", "torch.strided")
        self.dtype = about.get("dtype", "torch.float32")
        self.is_quantized = about.get("is_quantized", False)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def __getattr__(self, name: str) -> Any:
        if name not in ("detach", "cpu", "resolve_conj", "resolve_neg"):
            raise AttributeError(name)
        return lambda: Tensor((*self.done, name), **self.about)

    def numpy(self) -> np.ndarray:
        assert self.done == ("detach", "cpu", "resolve_conj", "resolve_neg")
        return np.ones(2, "f4")


Tensor.__module__ = "torch"
ALL_WAYS = [way for ways in WAYS.values() for way in ways]


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_tensor_leaves_its_gradients_and_its_device_behind(way: Any) -> None:
    assert way(Tensor()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"names": ("row",)}, "the names of its dimensions would be lost; send value.rename(None)"),
        ({"layout": "torch.sparse_coo"}, "its layout is torch.sparse_coo; send value.to_dense()"),
        ({"is_quantized": True}, "it is quantized; send value.dequantize()"),
        ({"dtype": "torch.bfloat16"}, "no other library has its bfloat16; send value.float()"),
    ],
)
def test_a_tensor_that_is_more_is_refused(way: Any, about: dict[str, Any], words: str) -> None:
    with pytest.raises((EncodingError, BridgeError)) as refused:
        way(Tensor(**about))
    assert words in str(refused.value)


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_subclass_of_tensor_may_be_more_than_its_elements(way: Any) -> None:
    with pytest.raises((EncodingError, BridgeError), match=r"send value\.as_subclass\(torch\.Tensor\)"):
        way(type("Masked", (Tensor,), {"__module__": "mine"})())
