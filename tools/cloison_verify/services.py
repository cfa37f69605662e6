# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that nobody of this project wrote, as Debian ships them, and the clients that put load on them.

Each service of a guest knows the guest's name and gives it with every answer. `ask` prints what one answer says;
`load` runs for some seconds with several connections, and looks at every answer itself: whatever does not come from
the guest that was meant counts as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

REQUESTS = 5000
"""How many redis-benchmark sends, which counts requests and not seconds."""
LOAD = "/run/load"
"""In each place: what the clients need, and what they printed."""
PG = "/usr/lib/postgresql/15/bin"
GUESTS = ("red", "blue", "grey")


@dataclass(frozen=True)
class Tally:
    """What a load has counted: good answers, and those that were wrong, late or failed."""

    answers: int
    wrong: int


@dataclass(frozen=True)
class Service:
    """A server and its clients, as shell commands that run as root in a guest, or on the host.

    `files` are the guest's own by path, beside what the package brings; `start` leaves a daemon behind, `ready`
    succeeds as soon as that answers, `fill` gives it the guest's name where a file cannot. `ask` is for an address
    and the guest that should answer there ("" if nobody should), `answer` is what it prints for a guest. `load` runs
    for `$seconds`.
    `served` prints how many of the answers of all loads the server itself has counted; "" where it does not.
    """

    name: str
    files: Callable[[str], dict[str, str]]
    start: str
    ask: Callable[[str, str], str]
    answer: Callable[[str], str]
    load: Callable[[str, str], str]
    tally: Callable[[str, int], Tally]
    log: str
    prepare: str = "true"
    ready: str = "true"
    fill: Callable[[str], str] = lambda _guest: "true"
    served: str = ""


def _url(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


def _number(pattern: str, output: str) -> int:
    """Return the number that `pattern` finds, 0 where it finds nothing."""
    found = re.search(pattern, output)
    return int(found[1]) if found else 0


def client_files() -> dict[str, str]:
    """Return what the clients of all services need, by path; the same in every place."""
    files = {f"{LOAD}/check.lua": _WRK}
    for guest in GUESTS:
        files[f"{LOAD}/{guest}.sql"] = (
            f"SELECT 1 / count(*) FROM guest WHERE name = '{guest}';\nINSERT INTO seen VALUES ('{guest}');\n"
        )
        files[f"{LOAD}/{guest}.queries"] = f"this-is-{guest}.guests.example TXT\n"
    return files


# --- nginx: body and header name the guest; wrk looks at both

_WRK = """\
local threads, who = {}, nil
wrong, good = 0, 0

function setup(thread) table.insert(threads, thread) end

function init(args) who = args[1] end

function response(status, headers, body)
  if status == 200 and headers["X-Guest"] == who and body == who then good = good + 1 else wrong = wrong + 1 end
end

function done(summary)
  local all, bad, e = 0, 0, summary.errors
  for _, thread in ipairs(threads) do all, bad = all + thread:get("good"), bad + thread:get("wrong") end
  io.write(string.format("good %d wrong %d failed %d\\n", all, bad, e.connect + e.read + e.write + e.timeout))
end
"""


def _wrk(output: str, status: int) -> Tally:
    good, wrong, failed = (_number(rf"{word} (\d+)", output) for word in ("good", "wrong", "failed"))
    return Tally(good, wrong + failed + (1 if status else 0))


NGINX = Service(
    "nginx",
    files=lambda guest: {
        "/var/www/html/index.html": guest,
        "/etc/nginx/conf.d/guest.conf": f'add_header X-Guest "{guest}";\n',
    },
    start="nginx",
    ask=lambda address, _guest: f"curl -sS -g -m 60 -w ' %header{{x-guest}}' '{_url(address)}'",
    answer=lambda guest: f"{guest} {guest}",
    load=lambda address, guest: (
        f"wrk -t 1 -c 8 -d ${{seconds}}s --timeout 30s -s {LOAD}/check.lua '{_url(address)}' -- {guest}"
    ),
    tally=_wrk,
    log="/var/log/nginx/error.log",
)


# --- PostgreSQL: a row, and where the server says that its data lie; a transaction of pgbench fails on another row


def _pgbench(output: str, status: int) -> Tally:
    done = _number(r"transactions actually processed: (\d+)", output)
    return Tally(done, output.count("aborted in command") or (1 if status else 0))


_PSQL = f"{PG}/psql -X -q -U postgres -d postgres"
POSTGRESQL = Service(
    "postgresql",
    files=lambda guest: {
        f"{LOAD}/tables.sql": f"CREATE TABLE guest AS SELECT '{guest}' AS name; CREATE TABLE seen (name text);\n",
        f"{LOAD}/data": f"/var/lib/postgresql/{guest}",
        # who may come from where: nobody asks for a password here
        f"{LOAD}/pg_hba": "host all all 192.0.2.0/24 trust\nhost all all 2001:db8::/32 trust\n",
    },
    prepare=(
        "install -d -m 2775 -o postgres -g postgres /run/postgresql &&"
        f" pg_createcluster 15 main -d $(cat {LOAD}/data) -p 5432 --locale C.UTF-8 -o listen_addresses='*' -o ssl=off"
        " -- --auth=trust --no-sync"
        f" && cat {LOAD}/pg_hba >>/etc/postgresql/15/main/pg_hba.conf"
    ),
    start="pg_ctlcluster 15 main start",
    fill=lambda _guest: f"{_PSQL} -h /run/postgresql -f {LOAD}/tables.sql",
    ask=lambda address, _guest: (
        f"PGCONNECT_TIMEOUT=60 {_PSQL} -tA -h '{address}' -c 'SELECT name FROM guest' -c 'SHOW data_directory'"
    ),
    answer=lambda guest: f"{guest} /var/lib/postgresql/{guest}",
    load=lambda address, guest: (
        f"{PG}/pgbench -n -c 2 -T $seconds -f {LOAD}/{guest}.sql -U postgres -h '{address}' postgres"
    ),
    tally=_pgbench,
    log="/var/log/postgresql/postgresql-15-main.log",
    served=f"{_PSQL} -tA -h /run/postgresql -c 'SELECT count(*) FROM seen'",
)


# --- Redis: a key; each request of redis-benchmark is a script that compares it, and an error ends the benchmark


def _redis(output: str, status: int) -> Tally:
    return Tally(0, 1) if status or "Error" in output else Tally(_number(r"(\d+) requests completed", output), 0)


def _compare(guest: str) -> str:
    return (
        f"if redis.call('get', 'guest') ~= '{guest}' then return redis.error_reply('OTHER another guest') end"
        " return redis.call('incr', 'answers')"
    )


REDIS_USER = "setpriv --reuid redis --regid redis --init-groups"
REDIS = Service(
    "redis",
    files=lambda _guest: {},
    prepare="install -d -o redis -g redis /run/redis",
    start=f"{REDIS_USER} redis-server /etc/redis/redis.conf --bind '* ::*' --protected-mode no",
    ready="redis-cli ping | grep -q PONG",
    fill=lambda guest: f"redis-cli set guest {guest} && redis-cli set answers 0",
    ask=lambda address, _guest: f"redis-cli -h '{address}' get guest",
    answer=lambda guest: guest,
    load=lambda address, guest: f"redis-benchmark -h '{address}' -c 8 -n {REQUESTS} eval \"{_compare(guest)}\" 0",
    tally=_redis,
    log="/var/log/redis/redis-server.log",
    served="redis-cli get answers",
)


# --- OpenSSH: the host key, and what a command prints; the load logs in as often as it can

SSH = f"ssh -F none -i {LOAD}/key -o BatchMode=yes -o ConnectTimeout=60 -o LogLevel=ERROR"


def _login(address: str, guest: str) -> str:
    known = f"-o UserKnownHostsFile={LOAD}/known -o StrictHostKeyChecking=yes -o HostKeyAlias={guest}"
    anybody = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"
    return f"{SSH} {known if guest else anybody} 'root@{address}' cat /etc/guest </dev/null"


OPENSSH = Service(
    "openssh",
    files=lambda guest: {"/etc/guest": f"{guest}\n"},
    prepare=(
        "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key &&"
        " install -d -m 755 /run/sshd && install -d -m 700 /root/.ssh &&"
        f" install -m 600 {LOAD}/key.pub /root/.ssh/authorized_keys"
    ),
    start="/usr/sbin/sshd -E /var/log/sshd.log",
    ask=_login,
    answer=lambda guest: guest,
    load=lambda address, guest: (
        f"end=$(($(date +%s) + seconds)); good=0; wrong=0;"
        " while [ $good$wrong = 00 ] || [ $(date +%s) -lt $end ]; do"
        f' if [ "$({_login(address, guest)})" = {guest} ]; then good=$((good + 1)); else wrong=$((wrong + 1)); fi;'
        ' done; echo "good $good wrong $wrong failed 0"'
    ),
    tally=_wrk,
    log="/var/log/sshd.log",
)


# --- NSD: a record, by UDP and by TCP; dnsperf asks for a name that only the right guest has


def _dnsperf(output: str, status: int) -> Tally:
    right, completed = _number(r"NOERROR (\d+)", output), _number(r"Queries completed:\s+(\d+)", output)
    return Tally(right, completed - right + _number(r"Queries lost:\s+(\d+)", output) + (1 if status else 0))


def _dig(address: str, *options: str) -> str:
    return f"dig {' '.join(options)} +short +time=10 +tries=2 '@{address}' who.guests.example TXT"


NSD = Service(
    "nsd",
    files=lambda guest: {
        "/etc/nsd/nsd.conf.d/guests.conf": (
            "server:\n    log-only-syslog: no\n    logfile: /var/log/nsd.log\n"
            "    rrl-ratelimit: 0\n"  # it drops what one client asks more than 200 times a second
            "remote-control:\n    control-interface: /run/nsd/nsd.ctl\n"  # no TCP port, which would need keys
            "zone:\n    name: guests.example\n    zonefile: /etc/nsd/guests.zone\n"
        ),
        "/etc/nsd/guests.zone": (
            "$ORIGIN guests.example.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 900 86400 60\n@ IN NS ns\n"
            f'ns IN A 192.0.2.1\nwho IN TXT "{guest}"\nthis-is-{guest} IN TXT "{guest}"\n'
        ),
    },
    prepare="install -d -o nsd -g nsd /run/nsd && install -o nsd -g nsd -m 644 /dev/null /var/log/nsd.log",
    start="nsd",
    ready=f"{_dig('127.0.0.1')} | grep -q '\"'",
    ask=lambda address, _guest: f"{_dig(address)} && {_dig(address, '+tcp')}",
    answer=lambda guest: f'"{guest}" "{guest}"',
    load=lambda address, guest: f"dnsperf -s '{address}' -d {LOAD}/{guest}.queries -l $seconds -c 2 -q 20 -t 30",
    tally=_dnsperf,
    log="/var/log/nsd.log",
)

ALL = (NGINX, POSTGRESQL, REDIS, OPENSSH, NSD)
