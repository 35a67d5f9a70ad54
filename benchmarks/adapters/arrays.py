"""What the benchmark of arrays runs in the interpreter."""

from snakepit_bridge import Adapter, command


class Arrays(Adapter):
    @command
    def plus_one(self, x):
        return x + 1

    @command
    def plus_one_list(self, x):
        import numpy

        return (numpy.array(x) + 1).tolist()

    @command
    def plus_one_json(self, x):
        """From text to text, as a system does that has nothing but JSON."""
        import json

        import numpy

        return json.dumps((numpy.array(json.loads(x)) + 1).tolist())

    @command
    def total(self, x):
        return float(x.sum())

    @command
    def filled(self, n):
        import numpy

        return numpy.full(n, 1.0)
