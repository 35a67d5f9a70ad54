"""The comparison of secrets, which takes the same time wherever they differ."""

from __future__ import annotations

try:  # what hmac.compare_digest is: hmac loads OpenSSL, which is 3 ms of each start
    from _operator import _compare_digest as same
except ImportError:
    from hmac import compare_digest as same

__all__ = ["same"]
