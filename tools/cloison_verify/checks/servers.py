# SPDX-License-Identifier: GPL-2.0-or-later
"""Real servers, twice on the same ports: Debian's packages, unmodified, in two guests of one kernel, under load.

They run in the image ``servers``, when they are named: ``./invoke verify --suite servers``, or the gate of that name.
"""

from __future__ import annotations

from dataclasses import replace

from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.guests import BLUE, GREY, HOST, RED, Place, house
from cloison_verify.scene import Scene, Seen
from cloison_verify.services import ALL, NGINX, NSD, OPENSSH, POSTGRESQL, REDIS, REDIS_USER, Service
from cloison_verify.serving import (
    IN_USE,
    LOOPBACK,
    NONE,
    Stream,
    ask,
    equip,
    figures,
    miscounted,
    mistaken,
    press,
    serve,
    set_up,
    start,
    streams_of,
    try_to_start,
)

IMAGE = "servers"
SECONDS = 600
EACH_ITS_OWN = "each answer from the guest that was meant"
COLLISION = f"blue: {IN_USE}; at its address: red; a load on blue: wrong answers"


def _apart(*services: Service, fewer: bool = False) -> Probe:
    """Return a probe that runs services in two guests at once, asks from everywhere, and puts all under load."""

    def probe(_scene: Scene) -> Seen:
        with house(RED, BLUE, GREY) as home:
            equip(home)
            wrong: list[str] = []
            for service in services:
                serve(home, service, RED, BLUE)
                wrong += mistaken(home, service, (RED, BLUE))
            streams = [stream for service in services for stream in streams_of(service)]
            if fewer:  # from the host by IPv6, from a guest to the other, and to its own 127.0.0.1
                streams = [stream for stream in streams if not (stream.place == HOST) ^ (":" in stream.address)]
            counts = press(home, streams)
            wrong += miscounted(home, counts)
            wrong += [fault for service in services for fault in mistaken(home, service, (RED, BLUE))]
        return Seen("; ".join(wrong) or EACH_ITS_OWN, note=figures(counts))

    return probe


def _together(service: Service) -> Probe:
    """Return a probe that starts a service in two contexts that share the network of the host."""

    def probe(_scene: Scene) -> Seen:
        with house(RED, BLUE, networks=False) as home:
            equip(home)
            serve(home, service, RED)
            set_up(home, service, BLUE)
            second = try_to_start(home, service, BLUE, IN_USE)
            address = BLUE.addresses[0]
            who = ask(home, service, {HOST: {address: NONE}})[HOST][address]
            [(_, tally)] = press(home, [Stream(service, HOST, address, BLUE)])
        return Seen(
            f"blue: {second}; at its address: {who}; a load on blue: {'wrong' if tally.wrong else 'good'} answers"
        )

    return probe


for _service, _what in (
    (NGINX, "nginx twice on port 80, wrk"),
    (POSTGRESQL, "PostgreSQL twice on port 5432, pgbench"),
    (REDIS, "Redis twice on port 6379, redis-benchmark"),
    (OPENSSH, "sshd twice on port 22, logins"),
    (NSD, "NSD twice on port 53, UDP and TCP, dnsperf"),
):
    check(
        f"servers.{_service.name}",
        title=f"two guests run {_service.name} on the same port of all addresses",
        attack=f"{_what}: by IPv4 and IPv6, from the host, from each guest, and from one without an address",
        expected=EACH_ITS_OWN,
        control=instead(_together(_service), COLLISION, "the same two in contexts without networks of their own"),
        seconds=SECONDS,
        image=IMAGE,
    )(_apart(_service))

check(
    "servers.together",
    title="two guests run five servers each, all under load at once",
    attack="nginx, PostgreSQL, Redis, sshd and NSD in two guests, and all their clients at the same time",
    expected=EACH_ITS_OWN,
    control=instead(_together(NGINX), COLLISION, "nginx in contexts without networks of their own"),
    seconds=2 * SECONDS,
    image=IMAGE,
)(_apart(*ALL, fewer=True))


def _loopback(*, networks: bool) -> Probe:
    """Return a probe that runs Redis with Debian's own configuration, which listens on 127.0.0.1 and ::1 only."""
    service = replace(REDIS, start=f"{REDIS_USER} redis-server /etc/redis/redis.conf")

    def probe(_scene: Scene) -> Seen:
        with house(RED, BLUE, networks=networks) as home:
            equip(home)
            serve(home, service, RED)
            set_up(home, service, BLUE)
            if networks:
                start(home, service, BLUE)
            else:
                try_to_start(home, service, BLUE, IN_USE)
            asked = (*LOOPBACK, RED.addresses[0])
            answers = ask(home, service, {place: dict.fromkeys(asked, NONE) for place in (HOST, RED, BLUE)})
        said = [f"{place.name}: {' '.join(answers[place][address] for address in asked)}" for place in answers]
        return Seen(", ".join(said))

    return probe


check(
    "servers.loopback",
    title="a server on 127.0.0.1 and ::1 of a guest is the guest's alone",
    attack="ask Redis, as Debian configures it, at 127.0.0.1, ::1 and red's address, from the host and two guests",
    expected="host: none none none, red: red red none, blue: blue blue none",
    control=instead(
        _loopback(networks=False),
        "host: red red none, red: red red none, blue: red red none",
        "in contexts without networks of their own",
    ),
    vectors=("N50",),
    seconds=SECONDS,
    image=IMAGE,
)(_loopback(networks=True))


def _listing(*, networks: bool) -> Probe:
    """Return a probe that lists the listening sockets in two guests that run different servers."""
    own = replace(REDIS, start=f"{REDIS_USER} redis-server /etc/redis/redis.conf")

    def probe(_scene: Scene) -> Seen:
        with house(RED, BLUE, networks=networks) as home:
            serve(home, NGINX, RED)
            serve(home, own, BLUE)
            listed = home.must({RED: "ss -Htln", BLUE: "ss -Htln"})
        said = []
        for place, output in listed.items():
            sockets = sorted(line.split()[3] for line in output.splitlines())
            said.append(f"{place.name}: {' '.join(sockets) or 'nothing'}")
        return Seen(", ".join(said))

    return probe


_WEB, _DATA = "0.0.0.0:80 [::]:80", "127.0.0.1:6379 [::1]:6379"
_BOTH = " ".join(sorted((*_WEB.split(), *_DATA.split())))
check(
    "servers.listing",
    title="ss in a guest shows the sockets of the guest",
    attack="ss -tln in two guests that run nginx and Redis",
    expected=f"red: {_WEB}, blue: {_DATA}",
    control=instead(
        _listing(networks=False), f"red: {_BOTH}, blue: {_BOTH}", "in contexts without networks of their own"
    ),
    seconds=SECONDS,
    image=IMAGE,
)(_listing(networks=True))


def _stranger(guest: Place) -> Probe:
    """Return a probe that lets a guest serve on blue's address and call red's."""
    other = replace(NGINX, start="nginx -c /etc/nginx/other.conf", log="/var/log/nginx/other.log")
    address = BLUE.addresses[0]
    text = f'server {{ listen {address}:80; root /var/www/html; add_header X-Guest "{guest.name}"; }}'
    config = {"/etc/nginx/other.conf": f"error_log {other.log};\nevents {{}}\nhttp {{ {text} }}\n"}

    def probe(_scene: Scene) -> Seen:
        with house(RED, guest) as home:
            serve(home, NGINX, RED)
            set_up(home, NGINX, guest)
            home.write(guest, config)
            how = try_to_start(home, other, guest, "Cannot assign requested address")
            outside = ask(home, NGINX, {HOST: {address: NONE}})[HOST][address]
            called = ask(home, NGINX, {guest: {RED.addresses[0]: RED.name}})[guest][RED.addresses[0]]
        return Seen(f"its server: {how}; who asks there: {outside}; its client gets: {called}")

    return probe


check(
    "servers.no-address",
    title="a guest without an address serves nobody and calls nobody",
    attack="nginx on an address of the machine, and a call to another guest, in a guest made with --no-address",
    expected="its server: Cannot assign requested address; who asks there: none; its client gets: none",
    control=instead(
        _stranger(BLUE),
        "its server: started; who asks there: blue; its client gets: red",
        "a guest that has the address",
    ),
    seconds=SECONDS,
    image=IMAGE,
)(_stranger(GREY))
