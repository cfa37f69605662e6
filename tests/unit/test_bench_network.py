# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of what sockets pay for network contexts."""

from __future__ import annotations

import pytest

from cloison_forge.bench.network import PLACES, REFERENCE, figures


def test_what_is_added_is_the_difference_in_the_same_placement() -> None:
    samples = {place.name: {"udp receive": [1000.0, 1100.0, 1200.0]} for place in PLACES}
    samples["10,000 addresses"] = {"udp receive": [1005.0, 1105.0, 1290.0]}
    table = figures(samples)
    assert table["10,000 addresses"]["udp receive"].added == 5.0
    assert table["10,000 addresses"]["udp receive"].percent == pytest.approx(0.5)
    assert table[REFERENCE]["udp receive"].added == 0


def test_the_places_differ_in_where_the_servers_are_made() -> None:
    assert len({(place.variant, place.options) for place in PLACES}) == len(PLACES)
    assert PLACES[0].name == REFERENCE
