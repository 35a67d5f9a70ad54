"""A script that serves itself."""

import sys

from snakepit_bridge.core import (
    BaseCommandHandler,
    ProtocolHandler,
    setup_broken_pipe_suppression,
    setup_graceful_shutdown,
)


class Handler(BaseCommandHandler):
    def _register_commands(self):
        self.register_command("shout", self.shout)
        self.register_command("later", self.later)

    def shout(self, args):
        return {"text": args["text"].upper()}

    async def later(self, args):
        return args


def main():
    setup_broken_pipe_suppression()
    handler = ProtocolHandler(Handler())
    setup_graceful_shutdown(handler)
    handler.run()
    print("ran to its end", file=sys.stderr)


if __name__ == "__main__":
    main()
