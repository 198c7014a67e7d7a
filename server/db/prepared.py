"""Inserts whose words are made once: for the hot path of the embedded database.

What SQLAlchemy does for each execution, for a row or for a hundred, takes longer than SQLite does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import Dialect, Insert, Table

Process = Callable[[Any], Any]
SIZES: Final = (64, 8, 1)  # rows of a statement


class PreparedInsert:
    """An insert of whole rows into a table, as a dialect with positional parameters has it. Rows
    are stored exactly as by `connection.execute(insert(table), rows)`.
    """

    def __init__(self, statement: Insert, table: Table, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=[c.key for c in table.columns])
        self.sql = str(compiled)
        head, places = self.sql.split(" VALUES ")
        # The driver lets go of the interpreter for each step, and gets it back only when another
        # thread has had enough of it: a step must take many rows.
        self._sql_of = {size: f"{head} VALUES {', '.join([places] * size)}" for size in SIZES}
        self._columns: list[tuple[str, Process | None]] = [
            (key, table.columns[key].type.dialect_impl(dialect).bind_processor(dialect))
            for key in compiled.positiontup or ()
        ]

    def statements(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Few statements, each with its parameters, that insert the rows in their order. Raises
        ValueError as `values`.
        """
        begin = 0
        while begin < len(rows):
            size = next(size for size in SIZES if size <= len(rows) - begin)
            made = map(self.values, rows[begin : begin + size])
            yield self._sql_of[size], tuple(chain.from_iterable(made))
            begin += size

    def values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """The statement's parameters for a row with a value for every column.

        Raises:
            ValueError: a value has no form in the database.
        """
        try:
            return tuple(
                row[key] if process is None else process(row[key]) for key, process in self._columns
            )
        except (TypeError, RecursionError) as error:  # JSON's words for what has no form in it
            raise ValueError(str(error)) from error
