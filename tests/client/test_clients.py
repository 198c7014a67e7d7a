from __future__ import annotations

import pytest
from pydantic import ValidationError
from ttrl_client import (
    AsyncTTRLClient,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    TTRLClient,
    UnavailableError,
    WaitTimeoutError,
    types,
)

from tests.client.conftest import BridgeTransport, ScriptedTransport


def test_the_blocking_client_runs_a_tenants_life(client: TTRLClient, bridge: BridgeTransport):
    settings = types.TenantSettings(answer="math", learning=types.Learning(steps=2))
    made = client.create_tenant("adder", settings)
    bridge.run(bridge.world.publish(made.id, 1))
    bridge.run(bridge.world.log_query(made.id, "q1"))

    assert client.read_tenant("adder").settings == settings
    assert client.update_tenant("adder", types.TenantSettings()).settings.answer == "auto"
    key = client.create_key("adder", "ci")
    assert client.revoke_key("adder", key.id).revoked_at is not None
    assert [key.name for key in client.list_keys("adder").items] == ["ci", "default"]
    cycle = client.trigger_cycle("adder", seed=3)
    assert client.list_cycles("adder").items == client.list_all_cycles().items == [cycle]
    assert client.cancel_cycle("adder", cycle.id).status == "cancelled"
    assert client.promote("adder", 1).to_version == 1
    assert client.read_version("adder", 1).live
    assert client.rollback("adder").to_version == 0
    assert [swap.to_version for swap in client.list_swaps("adder").items] == [0, 1]
    assert [version.number for version in client.list_versions("adder").items] == [1, 0]
    assert client.list_queries("adder").items[0].answers[1].text == "\\boxed{5}"
    assert client.read_status().num_queries == 1
    assert [tenant.name for tenant in client.list_tenants().items] == ["adder"]
    client.delete_tenant("adder")
    assert client.list_tenants().items == []


async def test_the_async_client_runs_a_tenants_life(
    aclient: AsyncTTRLClient, scripted: ScriptedTransport
):
    made = await aclient.create_tenant("adder")
    await scripted.world.publish(made.id, 1)

    cycle = await aclient.trigger_cycle("adder")
    assert (await aclient.read_cycle("adder", cycle.id)) == cycle
    assert (await aclient.promote("adder", 1)).to_version == 1
    assert (await aclient.rollback("adder", 0)).to_version == 0
    page = await aclient.list_versions("adder", limit=1)
    assert page.next is not None
    rest = await aclient.list_versions("adder", before=page.next)
    assert [version.number for version in page.items + rest.items] == [1, 0]
    await aclient.delete_tenant("adder")


def test_the_servers_errors_are_exceptions_of_their_own(client: TTRLClient):
    client.create_tenant("adder")
    client.trigger_cycle("adder")

    with pytest.raises(NotFoundError, match="nobody") as missing:
        client.read_tenant("nobody")
    with pytest.raises(ConflictError):
        client.trigger_cycle("adder")
    with pytest.raises(BadRequestError) as refused:
        client.update_tenant(
            "adder", types.TenantSettings(schedule=types.Schedule(cron="never ever"))
        )

    assert (missing.value.status_code, missing.value.code) == (404, "not_found")
    assert refused.value.param == "settings.schedule.cron"


def test_a_wrong_admin_key_is_an_authentication_error(bridge: BridgeTransport):
    with (
        TTRLClient("http://server", admin_key="wrong", transport=bridge) as client,
        pytest.raises(AuthenticationError),
    ):
        client.read_status()


def test_a_server_without_engines_says_when_to_try_again(
    client: TTRLClient, bridge: BridgeTransport
):
    made = client.create_tenant("adder")
    bridge.run(bridge.world.publish(made.id, 1))
    bridge.world.loader.is_away = True

    with pytest.raises(UnavailableError) as away:
        client.promote("adder", 1)

    assert away.value.retry_after_s == 3


def test_arguments_that_make_no_sense_are_refused_before_anything_is_sent(client: TTRLClient):
    with pytest.raises(ValidationError):
        client.create_tenant("Upper Case")
    with pytest.raises(ValueError, match="not a tenant name"):
        client.read_tenant("../status")
    with pytest.raises(ValidationError):
        client.promote("adder", -1)


def test_url_and_key_come_from_the_environment(
    bridge: BridgeTransport, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TTRL_URL", "http://elsewhere:1/")
    monkeypatch.setenv("TTRL_ADMIN_KEY", bridge.world.keys.admin_key)

    with TTRLClient(transport=bridge) as client:
        assert client.read_status().database == "ok"


@pytest.mark.parametrize("key", [None, "", "  ", "schlüssel"])
def test_a_client_without_a_usable_key_is_not_made(
    key: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TTRL_ADMIN_KEY", raising=False)

    with pytest.raises(ConfigurationError):
        TTRLClient(admin_key=key)


def worker(scripted: ScriptedTransport, cycle: types.Cycle) -> None:
    """What the worker does while somebody watches."""
    scripted.script = [
        lambda world: world.set_cycle(cycle.id, status="running", phase="train"),
        lambda world: world.add_step(cycle.id, 1, loss=0.5),
        lambda world: world.set_cycle(cycle.id, phase="train"),  # nothing new
        lambda world: world.add_step(cycle.id, 2, loss=0.25),
        lambda world: world.set_cycle(cycle.id, status="promoted", candidate_version=1),
    ]


def test_watching_yields_each_change_once_until_the_end(
    client: TTRLClient, bridge: BridgeTransport
):
    client.create_tenant("adder")
    cycle = client.trigger_cycle("adder")
    worker(bridge.scripted, cycle)

    seen = list(client.watch(cycle, poll_s=0))

    assert [(state.status.value, state.steps_done) for state in seen] == [
        ("running", 0),
        ("running", 1),
        ("running", 2),
        ("promoted", 2),
    ]
    assert [step.metrics["loss"] for step in seen[-1].steps] == [0.5, 0.25]


async def test_watching_works_the_same_for_asyncio(
    aclient: AsyncTTRLClient, scripted: ScriptedTransport
):
    await aclient.create_tenant("adder")
    cycle = await aclient.trigger_cycle("adder")
    worker(scripted, cycle)

    seen = [state.steps_done async for state in aclient.watch(cycle, poll_s=0)]

    assert seen == [0, 1, 2, 2]


def test_waiting_returns_the_final_cycle(client: TTRLClient, bridge: BridgeTransport):
    client.create_tenant("adder")
    cycle = client.trigger_cycle("adder")
    worker(bridge.scripted, cycle)

    assert client.wait(cycle, poll_s=0).candidate_version == 1


async def test_waiting_works_the_same_for_asyncio(
    aclient: AsyncTTRLClient, scripted: ScriptedTransport
):
    await aclient.create_tenant("adder")
    cycle = await aclient.trigger_cycle("adder")
    worker(scripted, cycle)

    assert (await aclient.wait(cycle, poll_s=0)).status == "promoted"


def test_waiting_has_an_end(client: TTRLClient):
    client.create_tenant("adder")
    cycle = client.trigger_cycle("adder")

    with pytest.raises(WaitTimeoutError, match="pending"):
        client.wait(cycle, poll_s=0, timeout_s=0)


async def test_waiting_has_an_end_for_asyncio(aclient: AsyncTTRLClient):
    await aclient.create_tenant("adder")
    cycle = await aclient.trigger_cycle("adder")

    with pytest.raises(WaitTimeoutError):
        await aclient.wait(cycle, poll_s=0, timeout_s=0)
