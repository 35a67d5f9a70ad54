"""How far a producer may be ahead of its consumer, and when gathered chunks are sent on.

- What is granted and not yet taken never exceeds one window, in chunks and in bytes (the chunk that uses up
  the bytes may be larger).
- A window grows only while its consumer keeps up, so a consumer that never takes costs the first window.
- Credit is given back in quarters, so an idle or slow stream costs few messages and no producer waits for
  credit that was taken.
- A gathered chunk waits for others at most FLUSH_SECONDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

FIRST_CHUNKS = 64
MOST_CHUNKS = 8192
WINDOW_BYTES = 1 << 20
SHARE = 4  # a grant is at least one of so many parts of the window

FLUSH_SECONDS = 0.001
FLUSH_CHUNKS = 1000
FLUSH_BYTES = 256 * 1024


class Grant(NamedTuple):
    """How much more a producer may send."""

    chunks: int
    bytes: int


@dataclass
class Window:
    """The credit of one stream. `first` is granted with the request, every later grant by `taken`."""

    chunks: int = FIRST_CHUNKS
    bytes: int = WINDOW_BYTES
    most_chunks: int = MOST_CHUNKS
    taken_chunks: int = 0  # since the last grant
    taken_bytes: int = 0

    @property
    def first(self) -> Grant:
        """What the producer has before it sends anything."""
        return Grant(self.chunks, self.bytes)

    def taken(self, chunks: int, size: int, drained: bool) -> Grant | None:
        """The consumer has taken so much, and with it everything (`drained`) or not; what to grant now."""
        self.taken_chunks += chunks
        self.taken_bytes += size
        if self.taken_chunks * SHARE < self.chunks and self.taken_bytes * SHARE < self.bytes:
            return None
        more = min(self.chunks, self.most_chunks - self.chunks) if drained else 0
        grant = Grant(self.taken_chunks + more, self.taken_bytes)
        self.chunks += more
        self.taken_chunks = self.taken_bytes = 0
        return grant


def flush_in(since_last: float, chunks: int, size: int) -> float:
    """Seconds until what has gathered is sent, when the last sending was `since_last` seconds ago: 0 at once.

    The first chunk after a pause does not wait; of a fast stream, as many go together as come meanwhile."""
    if chunks >= FLUSH_CHUNKS or size >= FLUSH_BYTES:
        return 0.0
    return max(0.0, FLUSH_SECONDS - since_last)
