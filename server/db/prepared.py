"""Inserts whose words are made once: for the hot path of the embedded database.

What SQLAlchemy does for each execution, for a row or for a hundred, takes longer than SQLite does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Table

Process = Callable[[Any], Any]


class PreparedInsert:
    """An insert of whole rows into a table, as a dialect with positional parameters has it. Rows
    are stored exactly as by `connection.execute(insert(table), rows)`.
    """

    def __init__(self, statement: Insert, table: Table, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=[c.key for c in table.columns])
        self._sql = str(compiled)
        self._columns: list[tuple[str, Process | None]] = [
            (key, table.columns[key].type.dialect_impl(dialect).bind_processor(dialect))
            for key in compiled.positiontup or ()
        ]

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, each with a value for every column. Errors as of `Connection.execute`, but
        for a `ValueError` about a value that has no form in the database.
        """
        values = [self._values(row) for row in rows]
        connection.exec_driver_sql(self._sql, values if len(values) > 1 else values[0])

    def _values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            return tuple(
                row[key] if process is None else process(row[key]) for key, process in self._columns
            )
        except TypeError as error:  # JSON's word for a value that has no form in it
            raise ValueError(str(error)) from error
