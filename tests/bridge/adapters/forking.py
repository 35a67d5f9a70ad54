"""Commands that fork."""

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import time

from snakepit_bridge import Adapter, command

FORK = multiprocessing.get_context("fork")


def square(x):
    return x * x


def sleep(seconds):
    time.sleep(seconds)


def wait_for_a_signal():
    """In short sleeps: one that begins just after the signal came would be slept to its end."""
    for _ in range(6000):
        time.sleep(0.01)


class Forking(Adapter):
    @command
    def children(self, count: int, how: str):
        """The exit statuses of forked children; negative ones are signals."""
        statuses = []
        reading, writing = os.pipe()
        for _ in range(count):
            pid = os.fork()
            if not pid:
                if how == "exit":
                    sys.exit(3)
                if how == "raise":
                    raise ValueError("of the child")
                if how == "return":
                    return "of the child"
                os.write(writing, b"x")
                wait_for_a_signal()
            if how == "terminate":
                os.kill(pid, signal.SIGTERM)  # at once: it may not have come to its first line
            if how == "interrupt":
                os.read(reading, 1)  # Python itself loses one that comes while it still forks
                os.kill(pid, signal.SIGINT)
            status = os.waitpid(pid, 0)[1]
            statuses.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        os.close(reading)
        os.close(writing)
        return sorted(set(statuses))

    @command
    def fork_in_a_stream(self):
        for _ in range(3):
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            yield bool(pid)

    @command
    def fork_one(self, item: int):
        pid = os.fork()
        if not pid:
            return "of the child"
        return os.waitpid(pid, 0)[1]

    @command
    def fork_and_stay(self):
        """A child that lives until it is ended: its pid."""
        child = os.fork()
        if not child:
            signal.pause()
        return child

    @command
    def pools(self, count: int):
        total = 0
        for _ in range(count):
            with FORK.Pool(2) as pool:
                total += sum(pool.map(square, range(4)))
        return total

    @command
    def pool_that_is_late(self):
        with FORK.Pool(1) as pool:
            try:
                pool.apply_async(sleep, (60,)).get(timeout=0.2)
            except multiprocessing.TimeoutError:
                return "late"

    @command
    def executors(self, count: int):
        total = 0
        for _ in range(count):
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=FORK) as executor:
                total += sum(executor.map(square, range(4)))
        return total

    @command
    def terminated(self):
        process = FORK.Process(target=sleep, args=(60,))
        process.start()
        process.terminate()
        process.join()
        return process.exitcode

    @command
    def inherits(self):
        """What a forked child and a started program see of the signals, and of gRPC's variable."""
        signal.signal(signal.SIGUSR2, self.handler)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            usual = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
            right = usual == [signal.SIG_DFL, signal.default_int_handler]
            own = signal.getsignal(signal.SIGUSR2) == self.handler
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os.write(writing, repr([right, own, sorted(blocked), signal.set_wakeup_fd(-1)]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(reading, 1000).decode()

    def handler(self, *_):
        pass

    @command
    def environment(self):
        return os.environ.get("GRPC_ENABLE_FORK_SUPPORT")

    @command
    def daemon(self, path: str):
        import atexit

        atexit.register(lambda: open(path, "w").close())
        self.process = FORK.Process(target=sleep, args=(600,), daemon=True)
        self.process.start()
        return self.process.pid
