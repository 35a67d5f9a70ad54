"""Adapters whose hooks say what was called, in a file."""

import asyncio

from snakepit_bridge import Adapter, ThreadSafeAdapter, command


class Hooks(Adapter):
    def __init__(self, path: str, greeting: str = "hello"):
        self.path = path
        self.greeting = greeting

    def say(self, words):
        with open(self.path, "a") as file:
            file.write(words + "\n")

    async def setup(self):
        await asyncio.sleep(0)
        self.say("setup " + self.greeting)

    def teardown(self):
        self.say("teardown")

    @command(idempotent=True, timeout=12.5)
    def greet(self, name: str, times: int = 1, *, how: "str | None" = None) -> str:
        """Says hello."""
        return f"{self.greeting} {name}" * times


class FailsToSetUp(Adapter):
    def setup(self):
        raise ConnectionError("no database")

    @command
    def never(self):
        return 1


class FailsInInit(Adapter):
    def __init__(self):
        raise KeyError("weights")

    @command
    def never(self):
        return 1


class Empty(Adapter):
    def method(self):
        return 1


class Threads(ThreadSafeAdapter):
    @command
    def local(self, value: int):
        seen = self.get_thread_local("value")
        self.set_thread_local("value", value)
        with self.acquire_lock(), self.lock:
            return seen


class Parent(Adapter):
    @command(idempotent=True)
    def inherited(self):
        return "parent"

    @property
    def explosive(self):
        raise AssertionError("a property was evaluated")


class Child(Parent):
    def inherited(self):
        return "child"

    @command(name="renamed")
    def method(self):
        return "renamed"
