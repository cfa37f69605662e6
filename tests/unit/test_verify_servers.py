# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite of real servers: which image it runs in, who must answer where, and what the clients' reports mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_forge.image import lockfile, packages, recipe, rootfs
from cloison_forge.machine import verification
from cloison_verify import catalogue, services
from cloison_verify.guests import BLUE, GREY, HOST, RED
from cloison_verify.services import ALL, NGINX, NSD, OPENSSH, POSTGRESQL, REDIS, Service, Tally
from cloison_verify.serving import LOOPBACK, must_answer


def test_the_image_is_that_of_the_host_with_servers() -> None:
    host, servers = recipe.load(), recipe.named("servers")
    assert set(host.root.packages) < set(servers.root.packages)
    assert {"nginx-light", "postgresql-15", "redis-server", "openssh-server", "nsd"} <= set(servers.root.packages)
    assert servers.root.uuid != host.root.uuid
    assert servers.disk == host.disk
    pinned = lockfile.read(rootfs.lock_path(servers))
    assert packages.covers(servers.root, pinned) == []
    assert "://" not in rootfs.lock_path(servers).read_text(encoding="utf-8")
    assert [path.name for path in rootfs.finishers(servers)] == ["finish-servers.sh", "finish-root.sh"]
    assert [path.name for path in rootfs.finishers(host)] == ["finish-root.sh"]


def test_an_image_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(UsageError, match="no image 'desktop'") as caught:
        recipe.named("desktop")
    assert caught.value.hint == "images: host, servers"


def test_a_recipe_that_extends_may_override_and_add(tmp_path: Path) -> None:
    (tmp_path / "host.toml").write_bytes((project().images / "host.toml").read_bytes())
    path = tmp_path / "more.toml"
    path.write_text('extends = "host.toml"\n[root]\nlabel = "more"\n[disk]\nesp_mib = 64\n', encoding="utf-8")
    plan = recipe.load(path)
    assert (plan.name, plan.lock, plan.root.label, plan.disk.esp_mib) == ("more", "more.lock", "more", 64)
    assert plan.root.packages == recipe.load().root.packages
    path.write_text('extends = "host.toml"\nroot = 1\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"\[root\] is not a table"):
        recipe.load(path)


def test_the_suite_runs_in_its_image_and_only_when_named() -> None:
    assert "servers" not in {check.suite for check in verification.make_plan("qemu").checks}
    plan = verification.make_plan("qemu", "servers")
    assert plan.image == "servers"
    assert {"servers.nginx", "servers.together"} <= {check.id for check in plan.checks}
    assert verification.make_plan("uml", "abi").image == catalogue.HOST_IMAGE
    with pytest.raises(UsageError, match="different images: host, servers"):
        verification.make_plan("uml", "abi,servers")


def test_who_must_answer_where() -> None:
    guests = (RED, BLUE)
    for place in (HOST, RED, BLUE):
        assert [must_answer(place, address, guests) for address in RED.addresses] == ["red", "red"]
        assert must_answer(place, BLUE.addresses[0], (RED,)) == "none"
    assert [must_answer(place, LOOPBACK[1], guests) for place in (HOST, RED, BLUE)] == ["none", "red", "blue"]
    assert {must_answer(GREY, address, guests) for address in (*RED.addresses, *LOOPBACK)} == {"none"}


_WRK = "Requests/sec:   4812.72\ngood 24189 wrong {wrong} failed {failed}\n"
_PGBENCH = "number of transactions actually processed: 14929\nnumber of failed transactions: 0 (0.000%)\n"
_ABORTED = "pgbench: error: client 1 script 0 aborted in command 0 query 0: ERROR:  division by zero\n"
_REDIS = "\r====== eval ======\n  5000 requests completed in 0.22 seconds\n  8 parallel clients\n"
_DNSPERF = (
    "  Queries sent:         900\n  Queries completed:    {done} (99%)\n  Queries lost:         {lost} (1%)\n\n"
    "  Response codes:       {codes}\n"
)


@pytest.mark.parametrize(
    ("service", "output", "status", "tally"),
    [
        (NGINX, _WRK.format(wrong=0, failed=0), 0, Tally(24189, 0)),
        (NGINX, _WRK.format(wrong=2, failed=3), 0, Tally(24189, 5)),
        (NGINX, "unable to connect to 192.0.2.1:http Connection refused\n", 1, Tally(0, 1)),
        (POSTGRESQL, _PGBENCH, 0, Tally(14929, 0)),
        (POSTGRESQL, _ABORTED + _PGBENCH, 2, Tally(14929, 1)),
        (POSTGRESQL, "pgbench: error: connection to server failed\n", 1, Tally(0, 1)),
        (REDIS, _REDIS, 0, Tally(5000, 0)),
        (REDIS, "Error from server: OTHER another guest\n", 1, Tally(0, 1)),
        (REDIS, "Error from server: OTHER another guest\n", 0, Tally(0, 1)),
        (OPENSSH, "good 7 wrong 1 failed 0\n", 0, Tally(7, 1)),
        (NSD, _DNSPERF.format(done=900, lost=0, codes="NOERROR 900 (100.00%)"), 0, Tally(900, 0)),
        (NSD, _DNSPERF.format(done=890, lost=10, codes="NOERROR 800 (90%), NXDOMAIN 90 (10%)"), 0, Tally(800, 100)),
        (NSD, _DNSPERF.format(done=900, lost=0, codes="REFUSED 900 (100.00%)"), 0, Tally(0, 900)),
    ],
)
def test_what_a_clients_report_means(service: Service, output: str, status: int, tally: Tally) -> None:
    assert service.tally(output, status) == tally


def test_no_answer_of_one_guest_can_pass_for_that_of_another() -> None:
    files = services.client_files()
    for service in ALL:
        assert service.answer("red") != service.answer("blue")
        assert service.ask("192.0.2.1", "red") != service.ask("192.0.2.2", "red")
        for guest in services.GUESTS:
            load = service.load("192.0.2.1", guest)
            needed = [files[path] for path in re.findall(rf"{services.LOAD}/\w+\.(?:sql|queries)", load)]
            assert any(re.search(rf"\b{guest}\b", text) for text in (load, *needed)), "it looks at the guest's name"
