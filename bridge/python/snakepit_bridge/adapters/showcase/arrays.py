"""The arrays of the showcase: numpy where it is there, nested lists where it is not."""

from __future__ import annotations

import math


def filled(shape: list, value: float) -> dict:
    """{shape, elements, size_bytes, encoding, tensor} of an array full of `value`."""
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape must hold integers of 0 or more, got {shape!r:.80}")
    numpy = _numpy()
    elements = math.prod(shape)
    tensor = numpy.full(shape, float(value)) if numpy else _nested(shape, float(value))
    encoding = "binary" if numpy else "json"
    return {
        "shape": shape,
        "elements": elements,
        "size_bytes": 8 * elements,
        "encoding": encoding,
        "tensor": tensor,
    }


def matrix(rows: list, columns: int):
    """`rows` as one float32 array of (len(rows), columns), or as they are."""
    numpy = _numpy()
    return numpy.asarray(rows, dtype="<f4").reshape(len(rows), columns) if numpy else rows


def process_images(images: list, return_tensors: bool) -> dict:
    """Figures of each image; an image is an array or nested lists of numbers."""
    import numpy

    arrays = [numpy.asarray(image, dtype=float) for image in images]
    if any(array.size == 0 for array in arrays):
        raise ValueError("an image is empty")
    results = [
        {"shape": array.shape, "mean": array.mean(), "min": array.min(), "max": array.max()}
        for array in arrays
    ]
    processed = {"count": len(arrays), "images": results}
    if return_tensors:
        processed["tensors"] = [_scaled(array) for array in arrays]
    return processed


def _scaled(array):
    low, high = array.min(), array.max()
    return ((array - low) / (high - low or 1.0)).astype("<f4")


def _nested(shape: list, value: float):
    if not shape:
        return value
    return [_nested(shape[1:], value) for _ in range(shape[0])]


def _numpy():
    try:
        import numpy
    except ImportError:  # this interpreter's venv has none
        return None
    return numpy
