"""Adapters that do what plain programs do in their main thread; what they saw is in a file."""

import asyncio
import contextlib
import contextvars
import decimal
import hashlib
import os
import signal
import sqlite3
import threading
import time

from snakepit_bridge import Adapter, ThreadSafeAdapter, command

NAME = contextvars.ContextVar("name", default="nobody")


def place():
    return threading.current_thread() is threading.main_thread()


class Plain(Adapter):
    def __init__(self, path: str):
        self.path = path
        self.places = {"init": place()}
        self.ticks = 0

    def setup(self):
        self.places["setup"] = place()
        self.database = sqlite3.connect(self.path)
        self.database.execute("create table seen (word text)")
        self.local = threading.local()
        self.local.value = "kept"
        decimal.getcontext().prec = 50
        NAME.set("setup")
        self.loop_of_setup = asyncio.get_event_loop_policy().get_event_loop()
        signal.signal(signal.SIGALRM, self.alarm)

    def alarm(self, *_):
        raise TimeoutError("the alarm")

    def on_session_start(self, session_id):
        self.places["session"] = place()

    def set_session_context(self, ctx):
        self.places["context"] = place()

    def teardown(self):
        self.database.execute("insert into seen values (?)", (f"teardown {place()}",))
        self.database.commit()

    @command
    def state(self):
        self.places["command"] = place()
        self.database.execute("insert into seen values ('command')")
        return {
            "value": self.local.value,
            "digits": len(str(decimal.Decimal(1) / 3)),
            "name": NAME.get(),
            "places": self.places,
        }

    @command
    async def later(self):
        self.places["async"] = place()
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is self.loop_of_setup and NAME.get() == "setup"

    @command
    def chunks(self):
        self.places["generator"] = place()
        yield 1

    @command
    async def chunks_later(self):
        self.places["async generator"] = place()
        yield 1

    @command
    async def chunks_at_last(self):
        def blocking():
            self.places["a generator that an async command returned"] = place()
            yield asyncio._get_running_loop() is None

        return blocking()

    @command
    def runs_a_loop(self, how: str):
        async def work():
            await asyncio.sleep(0)
            return place()

        if how == "run":
            return asyncio.run(work())
        loop = asyncio.get_event_loop()
        value = loop.run_until_complete(work())
        if how == "closed":
            loop.close()
        return value

    @command
    async def starts_a_task(self):
        async def tick():
            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        self.task = asyncio.ensure_future(tick())

    @command
    def ticked(self):
        return self.ticks

    @command
    async def handles_a_signal(self):
        came = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, came.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 10)
        return True

    @command
    def limited(self, seconds: float):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            time.sleep(10)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @command
    def leaves_an_alarm(self, seconds: float):
        signal.setitimer(signal.ITIMER_REAL, seconds)

    @command
    def deaf(self, ctx, how: str):
        ctx.emit("started")
        if how == "C":
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000_000)  # no signal handler runs meanwhile
        while how == "Python":
            pass
        time.sleep(30)

    @command
    async def deaf_async(self, ctx):
        ctx.emit("started")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    @command
    def replaces_the_handler(self):
        signal.signal(signal.SIGTERM, lambda *_: None)


class LaterSetup(Plain):
    async def setup(self):
        NAME.set("async setup")
        await asyncio.sleep(0)
        self.loop = asyncio.get_running_loop()

    def teardown(self):
        pass

    @command
    async def same(self):
        return [NAME.get(), asyncio.get_running_loop() is self.loop, place()]

    @command
    def same_sync(self):
        return [NAME.get(), asyncio.get_event_loop() is self.loop, place()]


class Threaded(ThreadSafeAdapter):
    def setup(self):
        NAME.set("setup")
        decimal.getcontext().prec = 40

    @command
    def seen(self):
        return [NAME.get(), decimal.getcontext().prec, place()]

    @command
    async def seen_later(self):
        return [NAME.get(), decimal.getcontext().prec, place()]
