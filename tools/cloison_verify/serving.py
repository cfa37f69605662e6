# SPDX-License-Identifier: GPL-2.0-or-later
"""Services in guests: set up, asked from everywhere, put under load, and every answer compared with who was meant."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloison_verify.guests import BLUE, GREY, HOST, RED, House, Place
from cloison_verify.scene import SceneError
from cloison_verify.services import LOAD, Service, Tally, client_files

LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = (*RED.addresses, *BLUE.addresses, *LOOPBACK)
NONE = "none"
IN_USE = "Address already in use"
LOAD_SECONDS = (5, 60)
"""How long the loads run, and how long once more where that was too short for one of them."""
_WAIT = 30.0
"""Seconds that a server which cannot listen may take to say so."""


@dataclass(frozen=True)
class Stream:
    """One load: from where, to which address, and the guest that has to give every answer."""

    service: Service
    place: Place
    address: str
    guest: Place


def equip(house: House) -> None:
    """Give every place what the clients need, with one key for logins."""
    places = (HOST, *house.guests)
    shutil.rmtree(LOAD, ignore_errors=True)
    for place in places:
        house.write(place, client_files())
    house.must({HOST: f"ssh-keygen -q -t ed25519 -N '' -f {LOAD}/key"})
    for guest in house.guests:
        for name in ("key", "key.pub"):
            shutil.copy(house.path(HOST, f"{LOAD}/{name}"), house.path(guest, f"{LOAD}/{name}"))


def set_up(house: House, service: Service, *guests: Place) -> None:
    """Configure a service in guests, without starting it."""
    for guest in guests:
        house.write(guest, service.files(guest.name))
    house.must(dict.fromkeys(guests, service.prepare))
    known = ""
    for guest in house.guests:
        key = house.path(guest, "/etc/ssh/ssh_host_ed25519_key.pub")
        known += f"{guest.name} {key.read_text(encoding='ascii')}" if key.exists() else ""
    for place in (HOST, *house.guests):
        house.write(place, {f"{LOAD}/known": known})


def start(house: House, service: Service, *guests: Place) -> None:
    """Start a configured service in guests and wait until it answers there."""
    wait = f"n=0; until {service.ready}; do n=$((n + 1)); [ $n -lt 100 ] || exit 9; sleep 0.3; done"
    house.must({guest: f"{service.start} && {{ {wait}; }} && {service.fill(guest.name)}" for guest in guests})


def serve(house: House, service: Service, *guests: Place) -> None:
    """Configure and start a service in guests."""
    set_up(house, service, *guests)
    start(house, service, *guests)


def try_to_start(house: House, service: Service, guest: Place, complaint: str) -> str:
    """Start a configured service that may not be able to; return `complaint` if it says that, else how it ended."""
    end = house.run({guest: service.start})[guest]
    log = house.path(guest, service.log)
    deadline = time.monotonic() + _WAIT
    while True:
        text = end.output + (log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")
        if complaint in text:
            return complaint
        if end.status or time.monotonic() > deadline:
            return f"status {end.status} {text[-200:].strip()}" if end.status else "started"
        time.sleep(0.2)


def must_answer(place: Place, address: str, guests: Sequence[Place]) -> str:
    """Return the name of the guest that has to answer in `place` at `address`, or "none"."""
    if address in LOOPBACK:
        return place.name if place in guests else NONE
    owner = next((guest for guest in guests if address in guest.addresses), None)
    return owner.name if owner and (place == HOST or place.addresses) else NONE


def ask(house: House, service: Service, questions: Mapping[Place, Mapping[str, str]]) -> dict[Place, dict[str, str]]:
    """Ask from several places at once; `questions` are addresses with the guest that should answer.

    The answers are names of guests, "none", or what was said instead.
    """
    scripts = {}
    for place, wanted in questions.items():
        lines = []
        for address, guest in wanted.items():
            words = shlex.quote(service.ask(address, "" if guest == NONE else guest))
            lines.append(f"who=$(timeout 120 sh -c {words} 2>>{LOAD}/errors) || who=; echo '{address}' $who")
        scripts[place] = "\n".join(lines)
    names = {service.answer(guest.name): guest.name for guest in (RED, BLUE, GREY)}
    answers: dict[Place, dict[str, str]] = {}
    for place, output in house.must(scripts).items():
        said = dict(line.partition(" ")[::2] for line in output.splitlines())
        answers[place] = {address: names.get(text, text) or NONE for address, text in said.items()}
    return answers


def mistaken(house: House, service: Service, guests: Sequence[Place]) -> list[str]:
    """Ask from the host and from every guest at every address; say which answers are not as they must be."""
    places = (HOST, *house.guests)
    wanted = {place: {address: must_answer(place, address, guests) for address in EVERYWHERE} for place in places}
    got = ask(house, service, wanted)
    return [
        f"{service.name}: {place.name} at {address}: {got[place].get(address)} instead of {who}"
        for place in places
        for address, who in wanted[place].items()
        if got[place].get(address) != who
    ]


def press(house: House, streams: Sequence[Stream]) -> list[tuple[Stream, Tally]]:
    """Run all loads at once, each in its place, and return what each has counted.

    On a machine that is so slow that one of them has counted nothing, all run once more, for longer.
    """
    counts = [Tally(0, 0)] * len(streams)
    for seconds in LOAD_SECONDS:
        round_ = _press_once(house, streams, seconds)
        counts = [Tally(a.answers + b.answers, a.wrong + b.wrong) for a, b in zip(counts, round_, strict=True)]
        idle = [number for number, tally in enumerate(counts) if not tally.answers and not tally.wrong]
        if not idle:
            return list(zip(streams, counts, strict=True))
    stream = streams[idle[0]]
    raise SceneError(f"a load on {stream.service.name} has counted nothing: {_excerpt(house, idle[0], stream)}")


def _press_once(house: House, streams: Sequence[Stream], seconds: int) -> list[Tally]:
    scripts: dict[Place, str] = {}
    for number, stream in enumerate(streams):
        words = shlex.quote(stream.service.load(stream.address, stream.guest.name))
        one = f"(seconds={seconds} sh -c {words} >{LOAD}/{number}.out 2>&1; echo $? >{LOAD}/{number}.status) &\n"
        scripts[stream.place] = scripts.get(stream.place, "") + one
    house.must({place: f"{script}wait" for place, script in scripts.items()})
    found = []
    for number, stream in enumerate(streams):
        out, status = (house.path(stream.place, f"{LOAD}/{number}.{end}") for end in ("out", "status"))
        text = out.read_text(encoding="utf-8", errors="replace")
        found.append(stream.service.tally(text, int(status.read_text(encoding="ascii"))))
    return found


def streams_of(service: Service) -> list[Stream]:
    """Return loads on both guests from everywhere: the host, each guest itself, and the other guest."""
    found = [Stream(service, HOST, address, guest) for guest in (RED, BLUE) for address in guest.addresses]
    for guest, other in ((RED, BLUE), (BLUE, RED)):
        found += [Stream(service, guest, address, guest) for address in LOOPBACK]
        found.append(Stream(service, guest, other.addresses[0], other))
    return found


def miscounted(house: House, counts: Sequence[tuple[Stream, Tally]]) -> list[str]:
    """Say which loads have seen wrong answers, and which servers have counted others than their clients."""
    wrong = [
        f"{stream.service.name}: {stream.place.name} at {stream.address}: {tally.wrong} of"
        f" {tally.answers + tally.wrong} not from {stream.guest.name}: {_excerpt(house, number, stream)}"
        for number, (stream, tally) in enumerate(counts)
        if tally.wrong
    ]
    for service in dict.fromkeys(stream.service for stream, _ in counts):
        if not service.served or wrong:
            continue
        for guest, told in house.must({RED: service.served, BLUE: service.served}).items():
            mine = [tally.answers for stream, tally in counts if (stream.service, stream.guest) == (service, guest)]
            if int(told) != sum(mine):
                wrong.append(f"{service.name}: {guest.name} has answered {told.strip()}, its clients count {sum(mine)}")
    return wrong


def _excerpt(house: House, number: int, stream: Stream) -> str:
    text = house.path(stream.place, f"{LOAD}/{number}.out").read_text(encoding="utf-8", errors="replace")
    return " ".join(text.split())[-160:]


def figures(counts: Sequence[tuple[Stream, Tally]]) -> str:
    """Return the loads in one line: how many answers each service gave in each guest."""
    parts = []
    for service in dict.fromkeys(stream.service for stream, _ in counts):
        mine = [(stream, tally) for stream, tally in counts if stream.service is service]
        sums = [sum(tally.answers for stream, tally in mine if stream.guest is guest) for guest in (RED, BLUE)]
        parts.append(f"{service.name}: {len(mine)} loads at once, {sums[0]} answers by red, {sums[1]} by blue")
    return f"{'; '.join(parts)} ({os.cpu_count()} processors)"
