"""The tables of the store's database. All that belongs to a session is keyed by its generation."""

from __future__ import annotations

VERSION = 1
SCHEMA = """
CREATE TABLE facts(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions(
    generation INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, pool TEXT NOT NULL, ttl REAL NOT NULL,
    version INTEGER NOT NULL, metadata TEXT NOT NULL, programs TEXT NOT NULL, fences TEXT NOT NULL,
    created_at REAL NOT NULL, used_at REAL NOT NULL,
    floor INTEGER NOT NULL DEFAULT 0, variables INTEGER NOT NULL DEFAULT 0);
CREATE TABLE variables(
    generation INTEGER, name TEXT, type TEXT NOT NULL, constraints TEXT NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY(generation, name)) WITHOUT ROWID;
CREATE TABLE versions(
    generation INTEGER, name TEXT, number INTEGER, changed INTEGER NOT NULL, at REAL NOT NULL,
    json BLOB NOT NULL, buffers BLOB, files TEXT,
    PRIMARY KEY(generation, name, number)) WITHOUT ROWID;
CREATE TABLE gone(
    generation INTEGER, name TEXT, number INTEGER NOT NULL, at REAL NOT NULL, changed INTEGER NOT NULL,
    PRIMARY KEY(generation, name)) WITHOUT ROWID;
CREATE TABLE programs(
    generation INTEGER, id TEXT, json BLOB NOT NULL, buffers BLOB, files TEXT,
    ttl REAL NOT NULL, used_at REAL NOT NULL,
    PRIMARY KEY(generation, id)) WITHOUT ROWID;
CREATE TABLE ops(n INTEGER PRIMARY KEY, session TEXT NOT NULL, op TEXT NOT NULL, at REAL NOT NULL, answer
TEXT); CREATE INDEX ops_of_sessions ON ops(session); CREATE INDEX versions_in_files ON versions(files) WHERE
files IS NOT NULL; CREATE TABLE garbage(generation INTEGER PRIMARY KEY);
"""
BY_GENERATION = {"versions": "name, number", "variables": "name", "gone": "name", "programs": "id"}
"""The tables whose rows go with their session, each with the rest of its key."""

PUT_SESSION = """
INSERT INTO sessions(generation, id, pool, ttl, version, metadata, programs, fences, created_at, used_at)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(generation) DO UPDATE SET
ttl=excluded.ttl, version=excluded.version, metadata=excluded.metadata, programs=excluded.programs,
fences=excluded.fences, used_at=excluded.used_at"""
PUT_VERSION = "INSERT OR REPLACE INTO versions VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
PUT_VARIABLE = "INSERT OR REPLACE INTO variables VALUES(?, ?, ?, ?, ?)"
PUT_GONE = "INSERT OR REPLACE INTO gone VALUES(?, ?, ?, ?, ?)"
PUT_PROGRAM = "INSERT OR REPLACE INTO programs VALUES(?, ?, ?, ?, ?, ?, ?)"
PUT_OP = "INSERT INTO ops(session, op, at, answer) VALUES(?, ?, ?, ?)"
RAISE_FACT = """
INSERT INTO facts VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value=max(value, excluded.value)"""
SET_FACT = "INSERT OR REPLACE INTO facts VALUES(?, ?)"
OLD_OPS = """
DELETE FROM ops WHERE n IN (SELECT n FROM ops
WHERE n <= (SELECT max(n) FROM ops) - ? AND (at < ? OR n <= (SELECT max(n) FROM ops) - ?) ORDER BY n LIMIT
?)"""
FILES = """
SELECT files FROM versions WHERE files IS NOT NULL UNION ALL SELECT files FROM programs WHERE files IS NOT
NULL"""
