"""A Python script behind a runtime that treats it as Ruby would be: see tests/adapters/ruby_like.py."""

from snakepit_bridge import Adapter, command


class Reports(Adapter):
    @command
    def process_data(self, data: str):
        return {"got": data}

    @command
    def generate_report(self, title: str):
        return {"title": title}
