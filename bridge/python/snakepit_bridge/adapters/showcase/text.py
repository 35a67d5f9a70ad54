"""What the showcase computes with plain Python: arithmetic, texts, embeddings, bytes."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections import Counter

_WORD = re.compile(r"\w+")
_POSITIVE = frozenset(
    ("good", "great", "excellent", "love", "happy", "best", "wonderful", "nice", "fast", "amazing")
)
_NEGATIVE = frozenset(
    ("bad", "poor", "terrible", "hate", "sad", "worst", "awful", "slow", "broken", "ugly", "wrong")
)


def compute(operation: str, a: float, b: float) -> float:
    """The result of one operation. Raises ValueError for an unknown one, ZeroDivisionError."""
    operations = {
        "add": lambda: a + b,
        "subtract": lambda: a - b,
        "multiply": lambda: a * b,
        "divide": lambda: a / b,
        "power": lambda: a**b,
        "sqrt": lambda: math.sqrt(a),
    }
    if operation not in operations:
        raise ValueError(f"unknown operation {operation!r}: there are {', '.join(operations)}")
    return operations[operation]()


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector: each word adds ±1 at a place that its hash names (feature hashing, Weinberger et al.
    2009).
    """
    if dimensions < 1:
        raise ValueError(f"dimensions must be at least 1, got {dimensions}")
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [""]:
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    norm = math.sqrt(sum(x * x for x in vector))
    if norm == 0:  # words that cancelled each other out
        vector[0] = norm = 1.0
    return [x / norm for x in vector]


def go_on_from(prompt: str, temperature: float, max_tokens: int) -> str:
    """`max_tokens` words that follow each other as those of the prompt do (a Markov chain of order 1, as in
    Shannon 1948). With a temperature of 0 always the most frequent one follows, above it others may, too; the
    same prompt gives the same text.
    """
    import random

    words = _WORD.findall(prompt) or ["..."]
    after: dict = {}
    for word, following in zip(words, words[1:] + words[:1]):  # noqa: B905 - strict= needs Python 3.10
        after.setdefault(word, Counter())[following] += 1
    drawing, word, text = random.Random(prompt), words[-1], []
    for _ in range(max_tokens):
        choices = after[word].most_common()
        weights = [count ** (1 / temperature) for _, count in choices] if temperature > 0 else [1]
        word = drawing.choices([one for one, _ in choices][: len(weights)], weights)[0]
        text.append(word)
    return " ".join(text)


def analyze(text: str) -> dict:
    """Counts, frequent words, sentiment from -1 to 1."""
    words = _WORD.findall(text.lower())
    positive = sum(word in _POSITIVE for word in words)
    negative = sum(word in _NEGATIVE for word in words)
    score = (positive - negative) / max(positive + negative, 1)
    return {
        "characters": len(text),
        "words": len(words),
        "sentences": len([part for part in re.split(r"[.!?]+", text) if part.strip()]),
        "unique_words": len(set(words)),
        "average_word_length": round(sum(map(len, words)) / max(len(words), 1), 3),
        "top_words": [{"word": word, "count": count} for word, count in Counter(words).most_common(5)],
        "sentiment": {
            "score": score,
            "label": "positive" if score > 0 else "negative" if score < 0 else "neutral",
        },
    }


def process_binary(data: bytes, operation: str):
    """One of checksum, crc32, length, reverse, histogram. Raises ValueError for another."""
    operations = {
        "checksum": lambda: hashlib.sha256(data).hexdigest(),
        "crc32": lambda: zlib.crc32(data),
        "length": lambda: len(data),
        "reverse": lambda: data[::-1],
        "histogram": lambda: {str(value): count for value, count in sorted(Counter(data).items())},
    }
    if operation not in operations:
        raise ValueError(f"unknown operation {operation!r}: there are {', '.join(operations)}")
    return operations[operation]()
