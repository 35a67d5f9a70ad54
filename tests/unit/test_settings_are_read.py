"""A setting that is accepted does something: every key of a pool and every option of a call is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snakepit_ray
from snakepit_ray.config import OPTION_NAMES, POOL_KEYS, CallOptions, PoolConfig
from snakepit_ray.errors import ConfigError

SOURCES = sorted(Path(snakepit_ray.__file__).parent.rglob("*.py"))
READ = re.compile(r"\.([a-z_]+)\b(?!\s*=[^=])")


def attributes_read() -> set[str]:
    """Names that some code of the package reads from an object: `thing.name`, and not `thing.name = ...`."""
    texts = (path.read_text() for path in SOURCES if "_pb" not in path.parts)
    return {name for text in texts for name in READ.findall(text)}


def test_every_setting_and_option_is_read() -> None:
    assert not {*POOL_KEYS, *OPTION_NAMES} - attributes_read()


def test_an_affinity_that_there_is_not_is_refused_wherever_it_is_given() -> None:
    for build in (PoolConfig, CallOptions):
        with pytest.raises(ConfigError, match="'hint', 'strict_queue', 'strict_fail_fast'"):
            build(affinity="strict")
