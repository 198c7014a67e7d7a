"""Prepared inserts store what SQLAlchemy stores, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, insert, text
from sqlalchemy.exc import IntegrityError

from server.db.engine import Database
from server.db.log import ANSWERS, PREPARED_ANSWERS, PREPARED_QUERIES, QUERIES
from server.db.models import Base
from server.db.prepared import PreparedInsert

TABLES = {"queries": (QUERIES, PREPARED_QUERIES), "answers": (ANSWERS, PREPARED_ANSWERS)}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
moments = st.datetimes(
    datetime(1971, 1, 1),
    datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
numbers = st.integers(-(2**62), 2**62)
floats = st.floats(allow_nan=False)
queries = st.fixed_dictionaries(
    {
        "id": texts,
        "tenant_id": numbers,
        "route": texts,
        "prompt": st.lists(values, max_size=3),
        "fingerprint": texts,
        "eligible": st.booleans(),
        "reason": st.none() | texts,
        "params": st.dictionaries(texts, values, max_size=3),
        "adapter_version": numbers,
        "stream": st.booleans(),
        "status": texts,
        "prompt_tokens": st.none() | numbers,
        "completion_tokens": st.none() | numbers,
        "latency_ms": floats,
        "first_byte_ms": st.none() | floats,
        "created_at": moments,
        "trace_id": st.none() | texts,
        "span_id": st.none() | texts,
    }
)
answers = st.fixed_dictionaries(
    {
        "query_id": texts,
        "choice": numbers,
        "text": texts,
        "tool_calls": st.none() | st.lists(values, max_size=3),
        "finish_reason": st.none() | texts,
        "reasoning": st.none() | texts,
    }
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A database without a single row."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    return engine


def stored(connection: Connection, name: str) -> Sequence[Any]:
    """Every value as it lies there, with its type; then nothing lies there any more."""
    columns = [column.name for column in TABLES[name][0].columns]
    wanted = ", ".join(f"typeof({column}), {column}" for column in columns)
    rows = connection.execute(text(f"SELECT {wanted} FROM {name} ORDER BY 2")).all()
    connection.execute(text(f"DELETE FROM {name}"))
    return rows


@pytest.mark.parametrize(("name", "rows"), [("queries", queries), ("answers", answers)])
def test_the_same_bytes(name: str, rows: Any, engine: Engine):
    table, prepared = TABLES[name]
    key = "id" if name == "queries" else "query_id"

    @settings(max_examples=150, deadline=None)
    @given(st.lists(rows, min_size=1, max_size=3, unique_by=lambda row: row[key]))
    def the_same_bytes(given_rows: list[dict[str, Any]]) -> None:
        with engine.begin() as connection:
            connection.execute(insert(table), given_rows)
            expected = stored(connection, name)
            values = [prepared.values(row) for row in given_rows]
            connection.exec_driver_sql(prepared.sql, values)
            assert stored(connection, name) == expected
            assert len(expected) == len(given_rows)

    the_same_bytes()


def test_what_has_no_form_is_a_value_error(engine: Engine):
    prepared = PreparedInsert(insert(ANSWERS), ANSWERS, engine.dialect)
    row = {"query_id": "x", "choice": 0, "text": "", "finish_reason": None, "reasoning": None}
    with pytest.raises(ValueError, match="serializable"):
        prepared.values(row | {"tool_calls": [object()]})
    moment = datetime(2026, 1, 1)
    with pytest.raises(Exception, match="zone|naive|aware"):
        PREPARED_QUERIES.values(
            dict.fromkeys(QUERIES.columns.keys(), None) | {"created_at": moment}
        )


async def test_an_insert_is_whole_or_not_at_all(tmp_path: Path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY)"))
    one, two = "INSERT INTO t VALUES (?)", "INSERT INTO t VALUES (?), (?)"
    await database.insert(lambda: [(two, (1, 2))])
    with pytest.raises(IntegrityError):
        await database.insert(lambda: [(one, (3,)), (one, (1,))])
    with pytest.raises(OverflowError):
        await database.insert(lambda: [(one, (4,)), (one, (2**70,))])
    await database.insert(lambda: [(one, (5,))])
    kept = await database.run(lambda c: c.execute(text("SELECT x FROM t")).scalars().all())
    assert kept == [1, 2, 5]
    await database.close()


@pytest.mark.parametrize("num_rows", [0, 1, 7, 8, 72, 200])
def test_many_rows_are_a_few_statements_in_their_order(num_rows: int) -> None:
    rows = [
        {
            "query_id": str(number),
            "choice": number,
            "text": "",
            "tool_calls": None,
            "finish_reason": None,
            "reasoning": None,
        }
        for number in range(num_rows)
    ]
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    made = list(PREPARED_ANSWERS.statements(rows))
    with engine.begin() as connection:
        for statement, parameters in made:
            connection.exec_driver_sql(statement, parameters)
        stored = list(connection.scalars(text("SELECT choice FROM answers ORDER BY rowid")))
    engine.dispose()
    assert stored == list(range(num_rows))
    assert len(made) <= num_rows // 64 + 8 + 7
