"""Leases on disk. A lease is written here before it is acknowledged, so it survives a crash or a loss of power.

SQLite with a write-ahead log and `synchronous=FULL` syncs each transaction to the disk before it returns
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bentos.gpu.leases import LIVE, DeviceAllocation, Lease, LeaseState
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)

_VERSION = 1
_SCHEMA = """
CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    shares TEXT NOT NULL,
    holder TEXT NOT NULL,
    tenant TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    ttl_s REAL NOT NULL,
    exclusive INTEGER NOT NULL,
    pid INTEGER,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    lost_reason TEXT NOT NULL,
    ended REAL
) STRICT;
CREATE UNIQUE INDEX live_keys ON leases (tenant, idempotency_key)
    WHERE idempotency_key <> '' AND state IN ('active', 'lost');
CREATE INDEX ends ON leases (ended) WHERE ended IS NOT NULL;
"""
_COLUMNS = [
    "id",
    "state",
    "shares",
    "holder",
    "tenant",
    "created",
    "expires",
    "ttl_s",
    "exclusive",
    "pid",
    "idempotency_key",
    "fingerprint",
    "lost_reason",
]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM leases WHERE ended IS NULL ORDER BY created, rowid"  # noqa: S608
_CHANGE = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS[1:], "ended"))
_WRITE = (
    f"INSERT INTO leases ({', '.join(_COLUMNS)}, ended) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))}) "  # noqa: S608
    f"ON CONFLICT (id) DO UPDATE SET {_CHANGE}"
)


class StoreHeldError(Exception):
    """Another process has the store open."""


class LeaseStore:
    """The file of leases. Used only on the thread that opened it.

    Args:
        path: The file; its folder is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Opens or creates the file, and locks it until `close` or the end of the process.

        Raises:
            StoreHeldError: Another process holds it, for instance the previous one.
            sqlite3.Error: The file is damaged, or of a newer version of the service.
            OSError: Its folder cannot be created.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            # Two processes with the same file would each lease memory that the other has leased already.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            _prepare(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise StoreHeldError from error
            raise
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Closes the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def live(self) -> list[Lease]:
        """Leases that have not ended, oldest first; some may have expired since they were written."""
        with self._transaction() as connection:
            rows = connection.execute(_SELECT).fetchall()
        return [_lease(row) for row in rows]

    def ended(self, limit: int) -> list[tuple[str, LeaseState]]:
        """The last `limit` leases that ended, in the order of their end."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT id, state FROM leases WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT ?", (limit,)
            ).fetchall()
        return [(row[0], LeaseState(row[1])) for row in reversed(rows)]

    def write(self, leases: Iterable[Lease], now: float) -> None:
        """Writes new or changed leases to disk, all or none.

        Raises:
            TorchlessError: INTERNAL, when they could not be written; nothing has changed then.
        """
        with self._transaction() as connection:
            connection.executemany(_WRITE, [_row(lease, now) for lease in leases])

    def forget(self, before: float) -> None:
        """Deletes leases that ended before a time, in seconds since the Unix epoch."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM leases WHERE ended < ?", (before,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise RuntimeError("the store is not open")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            logger.error("the lease store failed: %s", error)
            raise TorchlessError(
                ErrorKind.INTERNAL, "the service could not access its lease store; nothing was changed"
            ) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"the store has version {version}; this service supports version {_VERSION}")


def _row(lease: Lease, now: float) -> tuple[object, ...]:
    devices = [[s.uuid, s.index, s.name, s.memory_mb, s.lost] for s in lease.devices]
    return (
        lease.id,
        lease.state.value,
        json.dumps(devices),
        lease.holder,
        lease.tenant,
        lease.created,
        lease.expires,
        lease.ttl_s,
        lease.exclusive,
        lease.pid,
        lease.idempotency_key,
        lease.fingerprint,
        lease.lost_reason,
        None if lease.state in LIVE else now,
    )


def _lease(row: tuple[object, ...]) -> Lease:
    (id_, state, devices, holder, tenant, created, expires, ttl_s, exclusive, pid, key, fingerprint, reason) = row
    return Lease(
        id=str(id_),
        devices=tuple(DeviceAllocation(*each) for each in json.loads(str(devices))),
        holder=str(holder),
        tenant=str(tenant),
        created=float(created),  # type: ignore[arg-type]  # the schema is strict
        expires=float(expires),  # type: ignore[arg-type]
        ttl_s=float(ttl_s),  # type: ignore[arg-type]
        exclusive=bool(exclusive),
        pid=pid if isinstance(pid, int) else None,
        idempotency_key=str(key),
        fingerprint=str(fingerprint),
        state=LeaseState(str(state)),
        lost_reason=str(reason),
    )
