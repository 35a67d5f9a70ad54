"""How the showcase learns and predicts: logistic regression in plain Python, models as JSON files."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import tempfile
import zlib


def load_rows(path: str) -> tuple[list[list[float]], list[int]]:
    """Features and labels of a CSV file whose last column is the label, 0 or 1; a header is left out."""
    features, labels = [], []
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file)):
            try:
                *values, label = [float(value) for value in row]
            except ValueError:
                if number == 0:
                    continue
                raise ValueError(
                    f"{path}, line {number + 1}: numbers are expected, got {row!r:.80}"
                ) from None
            features.append(values)
            labels.append(int(label > 0))
    if len(features) < 2:
        raise ValueError(f"{path}: at least two rows are needed, got {len(features)}")
    return features, labels


def synthetic_rows(count: int, seed: int) -> tuple[list[list[float]], list[int]]:
    """Two overlapping clouds."""
    source = random.Random(seed)
    labels = [i % 2 for i in range(count)]
    features = [
        [source.gauss(2.0 * label - 1.0, 1.0), source.gauss(1.0 - 2.0 * label, 1.0)] for label in labels
    ]
    return features, labels


class Model:
    """w . x + b through the logistic function."""

    def __init__(self, weights: list[float], bias: float = 0.0) -> None:
        self.weights = weights
        self.bias = bias

    @classmethod
    def load(cls, path: str) -> Model:
        """Reads what `save` wrote."""
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        return cls([float(w) for w in stored["weights"]], float(stored["bias"]))

    def save(self, path: str | None) -> str:
        """Writes it to `path`, or to a new temporary file; where it is."""
        if path is None:
            descriptor, path = tempfile.mkstemp(prefix="showcase-model-", suffix=".json")
            os.close(descriptor)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"weights": self.weights, "bias": self.bias}, file)
        return path

    def probability(self, x: list[float]) -> float:
        """Of label 1."""
        if len(x) != len(self.weights):
            raise ValueError(f"the model takes {len(self.weights)} features, got {len(x)}")
        score = self.bias + sum(w * value for w, value in zip(self.weights, x))  # noqa: B905 - Python 3.9
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, score))))

    def learn(self, features: list[list[float]], labels: list[int], rate: float) -> float:
        """One pass of stochastic gradient descent; the mean log loss before each step."""
        loss = 0.0
        for x, label in zip(features, labels):  # noqa: B905 - Python 3.9
            p = self.probability(x)
            loss -= math.log(max(p if label else 1 - p, 1e-12))
            step = rate * (label - p)
            self.weights = [w + step * value for w, value in zip(self.weights, x)]  # noqa: B905 - Python 3.9
            self.bias += step
        return loss / len(features)

    def accuracy(self, features: list[list[float]], labels: list[int]) -> float:
        """Share of right answers."""
        right = sum((self.probability(x) >= 0.5) == bool(y) for x, y in zip(features, labels))  # noqa: B905
        return right / len(labels)


def features_of(item) -> list[float]:
    """Numbers as they are; of an image (array, or the bytes of a file) its mean and spread; of a name, its
    hash.
    """
    if isinstance(item, str):
        if os.path.isfile(item):
            with open(item, "rb") as file:
                return _moments(list(file.read(1 << 20)))
        return [zlib.crc32(item.encode()) % 1000 / 500 - 1, len(item) / 100]
    if isinstance(item, (bytes, bytearray)):
        return _moments(list(item))
    if isinstance(item, dict):
        return [float(value) for value in item.values() if isinstance(value, (int, float))]
    if isinstance(item, (int, float)):
        return [float(item)]
    flat = item.ravel().tolist() if hasattr(item, "ravel") else list(item)
    return [float(value) for value in flat] if len(flat) <= 64 else _moments(flat)


def _moments(values: list) -> list[float]:
    if not values:
        return [0.0, 0.0]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [mean / 128 - 1, spread / 128]


def predict(item, model: Model | None) -> tuple[str, float]:
    """(label, confidence) by the model, or by the sign of the features' sum where there is none."""
    x = features_of(item)
    p = model.probability(x) if model is not None else 1 / (1 + math.exp(-max(-60.0, min(60.0, sum(x)))))
    return ("positive", p) if p >= 0.5 else ("negative", 1 - p)
