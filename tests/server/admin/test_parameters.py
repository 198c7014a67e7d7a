"""Parameters of paths and queries at the ends of their ranges, on both databases: what a column
cannot hold is refused or not found, and never an error of the database.
"""

from __future__ import annotations

import httpx
import pytest

INT4, INT8 = 2**31 - 1, 2**63 - 1

NOT_FOUND = [
    f"/tenants/adder/versions/{INT4}",
    f"/tenants/adder/cycles/{INT8}",
]
FINE = [
    f"/tenants?before={INT8}",
    f"/cycles?before={INT8}",
    f"/tenants/adder/cycles?before={INT8}",
    f"/tenants/adder/keys?before={INT8}",
    f"/tenants/adder/swaps?before={INT8}",
    f"/tenants/adder/versions?before={INT4}",
    "/tenants/adder/queries?before=253402300799999999.x",  # the end of the last year
    "/tenants/adder/queries?before=-62135596800000000.x",  # the begin of the first
]
REFUSED = [
    "/tenants?before=%00",
    f"/tenants?before={INT8 + 1}",
    f"/cycles?before={INT8 + 1}",
    f"/tenants/adder/cycles?before={INT8 + 1}",
    f"/tenants/adder/cycles/{INT8 + 1}",
    f"/tenants/adder/keys?before={INT8 + 1}",
    f"/tenants/adder/swaps?before={INT8 + 1}",
    f"/tenants/adder/versions?before={INT4 + 1}",
    f"/tenants/adder/versions/{INT4 + 1}",
    "/tenants/adder/queries?before=1.%00",
    "/tenants/%00",
    "/tenants/adder%00/queries",
    "/tenants/adder/queries?before=1.%FF",
]


@pytest.mark.parametrize(
    ("path", "status"),
    [(path, 200) for path in FINE]
    + [(path, 404) for path in NOT_FOUND]
    + [(path, 400) for path in REFUSED],
)
async def test_a_number_or_text_at_its_bound(api: httpx.AsyncClient, path: str, status: int):
    await api.post("/tenants", json={"name": "adder"})

    assert (await api.get(path)).status_code == status


async def test_a_key_of_the_largest_id_is_not_found(api: httpx.AsyncClient):
    await api.post("/tenants", json={"name": "adder"})

    assert (await api.delete(f"/tenants/adder/keys/{INT8}")).status_code == 404
