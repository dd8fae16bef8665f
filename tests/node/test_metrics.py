"""What a scrape reads, parsed as Prometheus parses it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from node.statuses import connection, snapshot, status
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from odsi_proto.node.metrics import exposition
from odsi_proto.node.status import NodeStatus

OPERATORS = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()


def scraped(of: NodeStatus | None = None) -> dict[str, Metric]:
    """Families by name."""
    text, content_type = exposition(snapshot(of), "")
    assert content_type.startswith("text/plain; version=0.0.4")
    return {family.name: family for family in plain(text.decode())}


def values(family: Metric, label: str) -> Mapping[str, float]:
    return {sample.labels[label]: sample.value for sample in family.samples}


def test_counts_have_their_outcome_and_code_as_labels() -> None:
    families = scraped()

    assert families["odsi_steps"].type == "counter"
    assert values(families["odsi_steps"], "outcome")["late"] == 3
    assert values(families["odsi_refusals"], "code") == {"OVERLOADED": 1}
    assert values(families["odsi_connections_closed"], "code") == {"ORDER_VIOLATION": 2}
    assert [sample.value for sample in families["odsi_deadline_misses"].samples] == [3]


def test_a_value_at_a_bound_belongs_to_its_bucket_and_the_last_bucket_has_all() -> None:
    samples = scraped()["odsi_step_queue_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if "le" in sample.labels}
    rest = {sample.name: sample.value for sample in samples if "le" not in sample.labels}

    assert buckets["0.0001"] == 1  # 100 us
    assert buckets["0.0002"] == buckets["10.0"] == 2
    assert buckets["+Inf"] == rest["odsi_step_queue_seconds_count"] == 3
    assert rest["odsi_step_queue_seconds_sum"] == pytest.approx(20.000201)


def test_steps_with_nothing_left_have_a_bucket_of_their_own() -> None:
    samples = scraped()["odsi_step_slack_seconds"].samples

    assert next(sample.value for sample in samples if sample.labels.get("le") == "0.0") == 2


def test_what_is_measured_in_microseconds_is_told_in_seconds() -> None:
    families = scraped()

    rtt = values(families["odsi_connection_rtt_seconds"], "peer")
    assert sorted(rtt.values()) == [0.0123, 0.08]
    assert [sample.value for sample in families["odsi_uptime_seconds"].samples] == [3723]


def test_two_connections_with_one_peer_are_one_series() -> None:
    twice = status(connections=(connection(2, sent_bytes=10), connection(2, sent_bytes=5, rtt_us=9_500)))

    families = scraped(twice)

    assert list(values(families["odsi_connection_sent_bytes"], "peer").values()) == [15]
    assert list(values(families["odsi_connection_rtt_seconds"], "peer").values()) == [0.0095]


def test_series_of_a_connection_go_with_it() -> None:
    families = scraped(status(connections=()))

    assert all(not family.samples for name, family in families.items() if name.startswith("odsi_connection_"))


def test_the_open_format_is_given_to_who_asks_for_it() -> None:
    text, content_type = exposition(snapshot(), "application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in open_metrics(text.decode())}
    assert {"odsi_build", "odsi_steps", "odsi_step_slack_seconds", "process_cpu_seconds"} <= names


def test_the_handbook_names_every_metric_and_no_other() -> None:
    text = exposition(snapshot(), "")[0].decode()
    told = set(re.findall(r"^# TYPE (odsi_\w+)", text, re.MULTILINE))
    section = OPERATORS.partition("| metric | says |")[2].partition("\n\n")[0]
    written = set(re.findall(r"`(odsi_\w+)(?:\{\w+\})?`", section))
    traffic = {
        f"odsi_connection_{way}_{what}_total" for way in ("received", "lost") for what in ("bytes", "packets")
    }

    assert written | traffic == told
