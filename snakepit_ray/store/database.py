"""The store's SQLite database: facts in, facts out, one thread.

- WAL with synchronous NORMAL: what is committed outlives every process. A checkpoint each second bounds what
  the end of the machine can take.
- At the start only the rows of sessions are read. What a session has is read when it is asked for.
- What a session leaves behind is removed in portions.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.core.state.desk import SAVED_SHARE, Beginning
from snakepit_ray.core.state.housekeeping import KEPT_OPS, KEPT_SECONDS, MOST_OPS
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.core.state.orders import Content, Load, Op, Program, Row, Transaction
from snakepit_ray.core.state.records import Gone, Variable, Version
from snakepit_ray.core.state.registry import Session
from snakepit_ray.core.state.types import VariableType
from snakepit_ray.errors import ConfigError
from snakepit_ray.store import rows, schema


class Database:
    """The database at `path`, which is made where there is none.

    Raises sqlite3.DatabaseError for a file that is none or is damaged, sqlite3.OperationalError where it
    cannot be opened or written, ConfigError for one of a later version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint=0")  # the committer does it, between groups
        (version,) = self._one("PRAGMA user_version")
        if version > schema.VERSION:
            raise ConfigError(
                f"the session store {self.path} was written by a later version of snakepit_ray (its tables "
                f"have version {version}, this one knows {schema.VERSION}); use that version, or another "
                "path",
                key="session_store",
            )
        if version == 0:
            self._db.executescript(f"BEGIN;{schema.SCHEMA}PRAGMA user_version={schema.VERSION};COMMIT;")

    def begin(self, now: float, at: float) -> Beginning:
        """What is there, for a store that begins `now` (`at`: seconds since 1970); it is counted."""
        number = int(at * 1000)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(schema.RAISE_FACT, ("generation", number))
        self._db.execute(schema.SET_FACT, ("store", max(number, self._fact("store") + 1)))
        self._db.execute("COMMIT")
        found = self._db.execute("SELECT * FROM sessions ORDER BY generation").fetchall()
        (programs,) = self._one("SELECT count(*) FROM programs WHERE generation=0")
        return Beginning(
            store=self._fact("store"),
            generation=self._fact("generation"),
            open_at=now + LEASE_SECONDS if self._fact("leases") else now,
            is_durable=True,
            sessions=tuple(_session(row, now, at) for row in found),
            variables={row[0]: row[11] for row in found},
            global_programs=programs,
        )

    def _fact(self, name: str) -> int:
        found = self._one("SELECT value FROM facts WHERE name=?", name)
        return found[0] if found else 0

    def _one(self, sql: str, *values: Any) -> Any:
        return self._db.execute(sql, values).fetchone()

    # ---- writing ------------------------------------------------------------------------------------------

    def commit(self, transactions: Iterable[Transaction]) -> None:
        """All of them, or none. Raises sqlite3.Error."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for transaction in transactions:
                self._apply(transaction)
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # a full disk may have rolled it back already
            self._db.execute("ROLLBACK")

    def _apply(self, one: Transaction) -> None:
        db = self._db
        for generation in one.ended:
            db.execute("INSERT OR IGNORE INTO garbage VALUES(?)", (generation,))
            db.execute("DELETE FROM sessions WHERE generation=?", (generation,))
        if one.session is not None:
            self._put_session(one.session)
        if one.variables:
            self._put_variables(one)
        for name, program in one.programs.items():
            self._put_program(one.generation, name, program)
        if one.op is not None:
            op = one.op
            db.execute(schema.PUT_OP, (op.session, op.id, op.at, rows.encode_answer(op.answer)))
        for generation, used_at in one.uses.items():
            db.execute("UPDATE sessions SET used_at=? WHERE generation=?", (used_at, generation))
        for name, used_at in one.program_uses.items():
            db.execute("UPDATE programs SET used_at=? WHERE generation=0 AND id=?", (used_at, name))
        if one.grants:
            db.execute(schema.SET_FACT, ("leases", 1))

    def _put_session(self, session: Session) -> None:
        others = session.id, session.generation
        self._db.execute(
            "INSERT OR IGNORE INTO garbage SELECT generation FROM sessions WHERE id=? AND generation<>?",
            others,
        )
        self._db.execute("DELETE FROM sessions WHERE id=? AND generation<>?", others)
        self._db.execute(schema.RAISE_FACT, ("generation", session.generation))
        values = (
            session.generation,
            session.id,
            session.pool,
            session.ttl,
            session.version,
            rows.write_json(session.metadata),
            rows.write_json(list(session.programs)),
            rows.write_json(session.fences),
            session.created_at,
            session.used_at,
        )
        self._db.execute(schema.PUT_SESSION, values)

    def _put_variables(self, one: Transaction) -> None:
        db, generation, count = self._db, one.generation, 0
        old: list[tuple[Any, ...]] = []
        new: list[tuple[Any, ...]] = []
        for name, row in one.variables.items():
            count += (row.after is not None) - (row.before is not None)
            before = row.before.versions if row.before is not None else ()
            after = row.after.versions if row.after is not None else ()
            numbers, kept = {version.number for version in before}, {version.number for version in after}
            old += [(generation, name, number) for number in numbers - kept]
            new += [
                (generation, name, version.number, version.changed, version.at, *rows.encode(version.value))
                for version in after
                if version.number not in numbers
            ]
            self._put_variable(one, name, row)
        if old:
            db.executemany("DELETE FROM versions WHERE generation=? AND name=? AND number=?", old)
        db.executemany(schema.PUT_VERSION, new)
        if count or one.floor:
            db.execute(
                "UPDATE sessions SET variables=variables+?, floor=max(floor, ?) WHERE generation=?",
                (count, one.floor, generation),
            )

    def _put_variable(self, one: Transaction, name: str, row: Row) -> None:
        """What is kept of it beside its versions, where that has changed."""
        generation = one.generation
        if row.after is None:
            number = 0 if row.before is None else row.before.newest.number
            self._db.execute(schema.PUT_GONE, (generation, name, number, one.at, one.change))
            self._db.execute("DELETE FROM variables WHERE generation=? AND name=?", (generation, name))
        elif not _is_same(row):
            demand = row.after.demand
            facts = rows.write_json(demand.constraints), rows.write_json(row.after.metadata)
            self._db.execute(schema.PUT_VARIABLE, (generation, name, str(demand.type), *facts))
            self._db.execute("DELETE FROM gone WHERE generation=? AND name=?", (generation, name))

    def _put_program(self, generation: int, name: str, program: Program | None) -> None:
        if program is None:
            self._db.execute("DELETE FROM programs WHERE generation=? AND id=?", (generation, name))
            return
        encoded = rows.encode(program.data)
        self._db.execute(schema.PUT_PROGRAM, (generation, name, *encoded, program.ttl, program.used_at))

    def unlease(self) -> None:
        """No lease is out any more: the next store need not wait."""
        self._db.execute(schema.SET_FACT, ("leases", 0))

    # ---- reading ------------------------------------------------------------------------------------------

    def load(self, load: Load) -> Content:
        """What is kept of a session. Raises sqlite3.Error, ValueError where that is damaged."""
        generation = load.generation
        if load.session and not generation:
            return Content(ops=self._ops(load.session))
        return Content(
            variables=self._variables(generation),
            gone={
                name: Gone(number, at, changed)
                for name, number, at, changed in self._db.execute(
                    "SELECT name, number, at, changed FROM gone WHERE generation=?", (generation,)
                )
            },
            floor=(self._one("SELECT floor FROM sessions WHERE generation=?", generation) or (0,))[0],
            programs={
                name: Program(rows.decode(text, blob), ttl, used_at)
                for name, text, blob, ttl, used_at in self._db.execute(
                    "SELECT id, json, buffers, ttl, used_at FROM programs WHERE generation=?", (generation,)
                )
            },
            ops=self._ops(load.session),
        )

    def _variables(self, generation: int) -> dict[str, Variable]:
        versions: dict[str, list[Version]] = {}
        for name, number, changed, at, text, blob in self._db.execute(
            "SELECT name, number, changed, at, json, buffers FROM versions WHERE generation=? "
            "ORDER BY name, number",
            (generation,),
        ):
            versions.setdefault(name, []).append(Version(number, rows.decode(text, blob), at, changed))
        return {
            name: Variable(
                name,
                Demand(VariableType(kind), rows.read_json(constraints)),
                rows.read_json(metadata),
                tuple(versions[name]),
            )
            for name, kind, constraints, metadata in self._db.execute(
                "SELECT name, type, constraints, metadata FROM variables WHERE generation=?", (generation,)
            )
        }

    def _ops(self, session: str) -> dict[str, Op]:
        found = self._db.execute("SELECT op, answer, at FROM ops WHERE session=? ORDER BY n", (session,))
        return {op: Op(session, op, rows.decode_answer(answer), at) for op, answer, at in found}

    def files(self) -> set[str]:
        """The names of the files that rows name."""
        return {name for (names,) in self._db.execute(schema.FILES) for name in rows.read_json(names)}

    def size(self) -> int:
        """Bytes on the disk, the log included."""
        log = self.path.with_name(self.path.name + "-wal")
        return sum(path.stat().st_size for path in (self.path, log) if path.exists())

    # ---- housekeeping -------------------------------------------------------------------------------------

    def sweep(self, most: int, at: float) -> int:
        """Removes at most `most` rows that nobody asks for any more. Returns how many there were. Raises
        sqlite3.Error."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            gone = self._sweep_garbage(most) or self._sweep_ops(most, at)
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return gone

    def _sweep_garbage(self, most: int) -> int:
        found = self._one("SELECT generation FROM garbage LIMIT 1")
        if found is None:
            return 0
        for table, key in schema.BY_GENERATION.items():
            gone = self._db.execute(
                f"DELETE FROM {table} WHERE generation=? AND ({key}) IN "
                f"(SELECT {key} FROM {table} WHERE generation=? LIMIT ?)",
                (found[0], found[0], most),
            ).rowcount
            if gone:
                return gone
        self._db.execute("DELETE FROM garbage WHERE generation=?", found)
        return 1

    def _sweep_ops(self, most: int, at: float) -> int:
        return self._db.execute(schema.OLD_OPS, (KEPT_OPS, at - KEPT_SECONDS, MOST_OPS, most)).rowcount

    def checkpoint(self) -> None:
        """Moves what is in the log to its place. Raises sqlite3.Error."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def execute(self, sql: str) -> Sequence[Any]:
        """The rows of a statement, for tests."""
        return self._db.execute(sql).fetchall()

    def close(self) -> None:
        """Safe to repeat."""
        with contextlib.suppress(sqlite3.Error):
            self.checkpoint()
        self._db.close()


def _session(row: Sequence[Any], now: float, at: float) -> Session:
    """A session that was kept. The time of its last use was written down late: so much longer it lives."""
    generation, name, pool, ttl, version, metadata, programs, fences, created_at, used_at = row[:10]
    idle = max(0.0, at - used_at - ttl * SAVED_SHARE)
    return Session(
        name,
        generation,
        pool,
        ttl,
        now - idle,
        version,
        rows.read_json(metadata),
        dict.fromkeys(rows.read_json(programs)),
        created_at,
        rows.read_json(fences),
    )


def _is_same(row: Row) -> bool:
    """Whether the variable was there, with this demand and these metadata."""
    before, after = row
    if before is None or after is None:
        return False
    return before.demand is after.demand and before.metadata is after.metadata
