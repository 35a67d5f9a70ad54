"""A pool for unit tests: no Ray, no other process. Commands are functions, or an adapter, of this process.

What is checked is checked by the code of the real pool and of the real bridge: options, arguments, values,
errors. What needs several processes is not imitated (see FakePool).
"""

from snakepit_ray.testing.fake.pool import FakePool
from snakepit_ray.testing.fake.refs import FakeChunkRefs, FakeRef
from snakepit_ray.testing.fake.script import RecordedCall

__all__ = ["FakeChunkRefs", "FakePool", "FakeRef", "RecordedCall"]
