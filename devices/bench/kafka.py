"""`headrace bench kafka`: streams on a real Kafka, beside plain aiokafka and the embedded log.

Publishing with QoS 1 until Kafka has confirmed, how long that takes, reading it all back as events, and an outage: what
is spooled meanwhile and how fast it drains. After each run Kafka must hold each acknowledged message once, in order.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from devices.bench.checks import CheckFailed, EventScanner, NumberCollector
from devices.bench.endpoints import EventReader, Publisher
from devices.bench.frames import TOPIC_COUNT, PublishBlock, PublishLayout
from devices.bench.kafka_broker import KafkaBroker, kafka_running
from devices.bench.latency import Latency, connect_publishers, run_paced
from devices.bench.load import Load, LoadResult
from devices.bench.mqtt import Scenario, new_publisher, run_ceiling
from devices.bench.peers import HEADRACE, PEERS, Peer, Server, data_root, headrace_command, running
from devices.bench.plain_kafka import Answer, run_plain, starting_plain
from devices.bench.programs import Ports
from devices.bench.results import LATE_SUFFIX, PLAIN, Report, Row
from devices.bench.rounds import Plan, measure_runs
from devices.bench.sse import SCENARIOS as SSE_SCENARIOS
from devices.bench.sse import STORED_LABEL
from devices.bench.sse import run_ceiling as run_sse_ceiling
from devices.bench.stored import bench_stream, expect_records
from devices.bench.wire import PeerFailed, connect_mqtt, open_events

PAYLOAD_BYTES = 200
PUBLISHERS = 10
WINDOW = 2_000
PARTITIONS = (1, 12)
LATENCY_RATES = (1_000, 10_000)
LATENCY_PUBLISHERS = 100
LATENCY_PARTITIONS = 12
FILL_WINDOW = 4_000
EVENTS_A_SECOND = 500_000
"""So many records for each measured second are there to be read."""
WARM_UP_S = 2.0
"""Of a Java that has just started."""
TIMEOUT_S = 120.0
MODE_TIMEOUT_S = 20.0

PUBLISH_KEYS = tuple(f"kafka_{partitions}" for partitions in PARTITIONS)
SSE_KEYS = tuple(f"kafka_sse_{partitions}" for partitions in PARTITIONS)
KEYS = (*PUBLISH_KEYS, "kafka_ack", *SSE_KEYS, "kafka_spool")


@dataclass
class KafkaTopic:
    """One run's topic, and the kind of server that keeps its stream there."""

    bootstrap: str
    partitions: int
    more: str = ""
    """What else the configuration says, of Kafka."""
    name: str = field(default_factory=lambda: f"headrace-bench-{secrets.token_hex(4)}")

    def peer(self) -> Peer:
        """Headrace with the bench's stream in this topic."""
        return Peer(HEADRACE, PEERS[HEADRACE].version, self._command)

    def _command(self, directory: Path, ports: Ports, storage: str) -> list[str]:
        place = f'{{ topic = "{self.name}", partitions = {self.partitions}, replication = 1 }}'
        kafka = f'kafka = {place}\n[kafka]\nbootstrap_servers = ["{self.bootstrap}"]\n{self.more}'
        return headrace_command(directory, ports, "kafka", kafka)

    def check(self, acknowledged: int) -> None:
        """Kafka holds what was acknowledged. Raises: CheckFailed, PeerFailed"""
        answer = run_plain("check", TIMEOUT_S, bootstrap=self.bootstrap, topic=self.name, acknowledged=acknowledged)
        if answer["error"]:
            raise CheckFailed(f"Kafka: {answer['error']}")

    @contextlib.contextmanager
    def kept(self) -> Iterator[KafkaTopic]:
        """The topic is deleted in the end."""
        try:
            yield self
        finally:
            with contextlib.suppress(PeerFailed):
                run_plain("delete", TIMEOUT_S, bootstrap=self.bootstrap, topic=self.name)


def bench_kafka(plan: Plan, report: Report, keys: Sequence[str] = KEYS, bootstrap: str | None = None) -> None:
    """Measure into the report."""
    try:
        with kafka_running(bootstrap) as broker:
            report.facts["Kafka"] = f"at {broker.bootstrap}, " + (
                "of its own, on the same machine" if broker.pid else "given by its address"
            )
            if broker.pid:
                _warm_up(broker)
            for partitions, key in zip(PARTITIONS, PUBLISH_KEYS, strict=True):
                if key in keys:
                    _bench_publish(plan, report, broker, key, partitions)
            if "kafka_ack" in keys:
                _bench_latency(plan, report, broker)
            for partitions, key in zip(PARTITIONS, SSE_KEYS, strict=True):
                if key in keys:
                    _bench_events(plan, report, broker, key, partitions)
            if "kafka_spool" in keys:
                _bench_spool(plan, report, broker)
    except PeerFailed as error:
        report.failures.append(f"Kafka: {error}")
        plan.report(report.failures[-1])


def _warm_up(broker: KafkaBroker) -> None:
    with KafkaTopic(broker.bootstrap, 1).kept() as topic:
        _run_plain_producer(broker, topic, PAYLOAD_BYTES, 0.0, WARM_UP_S)


# Publishing


def _scenario(key: str, title: str) -> Scenario:
    return Scenario(key, title, 1, "publish", PUBLISHERS, 0, WINDOW)


def _run_publishers(scenario: Scenario, plan: Plan, server: Server, broker: KafkaBroker | None = None) -> LoadResult:
    publishers = [
        new_publisher(scenario, plan, number, connect_mqtt(server.mqtt_port, f"bench-publisher-{number}"))
        for number in range(scenario.publishers)
    ]
    with contextlib.closing(Load(publishers, [])) as load:
        return load.run(
            warm_up_s=plan.warm_up_s,
            seconds=plan.seconds,
            server_cpu_s=server.cpu_s,
            beside_cpu_s=broker.cpu_s if broker is not None else lambda: 0.0,
        )


def _publish_to_kafka(scenario: Scenario, plan: Plan, broker: KafkaBroker, partitions: int) -> LoadResult:
    with KafkaTopic(broker.bootstrap, partitions).kept() as topic:
        with running(topic.peer()) as server:
            result = _run_publishers(scenario, plan, server, broker)
        topic.check(result.sent)
    return result


def _publish_to_sqlite(scenario: Scenario, plan: Plan) -> LoadResult:
    with running(PEERS[HEADRACE], storage="sqlite") as server:
        result = _run_publishers(scenario, plan, server)
        expect_records(server, result.sent)
    return result


def _run_plain_producer(
    broker: KafkaBroker, topic: KafkaTopic, payload_bytes: int, warm_up_s: float, seconds: float
) -> Answer:
    return run_plain(
        "produce",
        TIMEOUT_S,
        bootstrap=broker.bootstrap,
        topic=topic.name,
        partitions=topic.partitions,
        payload_bytes=payload_bytes,
        warm_up_s=warm_up_s,
        seconds=seconds,
        kafka_pid=broker.pid or 0,
    )


def _plain_result(answer: Answer) -> LoadResult:
    return LoadResult(
        messages=answer["messages"],
        seconds=answer["seconds"],
        server_cpu_s=answer["cpu_s"],
        load_cpu_s=0.0,
        other_cpu_s=max(0.0, answer["other_cpu_s"]),
        sent=answer["sent"],
    )


def _produce_plainly(plan: Plan, broker: KafkaBroker, partitions: int) -> LoadResult:
    with KafkaTopic(broker.bootstrap, partitions).kept() as topic:
        result = _plain_result(_run_plain_producer(broker, topic, plan.payload_bytes, plan.warm_up_s, plan.seconds))
        topic.check(result.sent)
    return result


def _bench_publish(plan: Plan, report: Report, broker: KafkaBroker, key: str, partitions: int) -> None:
    scenario = _scenario(key, f"QoS 1 from {PUBLISHERS} publishers → Kafka → PUBACK, {_partitions(partitions)}")
    row = report.add_row(Row(key, scenario.title, baseline=PLAIN))
    runs = {
        HEADRACE: partial(_publish_to_kafka, scenario, plan, broker, partitions),
        PLAIN: partial(_produce_plainly, plan, broker, partitions),
        STORED_LABEL: partial(_publish_to_sqlite, scenario, plan),
    }
    measure_runs(row, plan, runs, partial(run_ceiling, scenario, plan), bare=(PLAIN,))


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"


# Latency


def _run_latency(plan: Plan, broker: KafkaBroker, rate: int, run: str) -> Latency:
    with KafkaTopic(broker.bootstrap, LATENCY_PARTITIONS).kept() as topic:
        with running(topic.peer()) as server:
            publishers = connect_publishers(server.mqtt_port, LATENCY_PUBLISHERS, plan.payload_bytes, run)
            try:
                latency = run_paced(publishers, rate=rate, warm_up_s=plan.warm_up_s, seconds=plan.seconds)
            finally:
                for publisher in publishers:
                    publisher.socket.close()
        topic.check(latency.sent)
    return latency


def _run_plain_latency(plan: Plan, broker: KafkaBroker, rate: int) -> Latency:
    with KafkaTopic(broker.bootstrap, LATENCY_PARTITIONS).kept() as topic:
        answer = run_plain(
            "latency",
            TIMEOUT_S,
            bootstrap=broker.bootstrap,
            topic=topic.name,
            partitions=topic.partitions,
            payload_bytes=plan.payload_bytes,
            rate=rate,
            warm_up_s=plan.warm_up_s,
            seconds=plan.seconds,
        )
        topic.check(answer["sent"])
    return Latency(answer["p50_ms"], answer["p99_ms"], answer["late_p99_ms"], answer["sent"])


def _bench_latency(plan: Plan, report: Report, broker: KafkaBroker) -> None:
    for number in range(plan.rounds):
        for rate in LATENCY_RATES:
            title = f"ack at {rate:,}/s through Kafka, {LATENCY_PARTITIONS} partitions"
            try:
                ours = _run_latency(plan, broker, rate, f"{rate}-{number}")
                _add_latency(report, plan, f"kafka_ack_{rate}", f"{title}, from {LATENCY_PUBLISHERS} publishers", ours)
                plain = _run_plain_latency(plan, broker, rate)
                _add_latency(report, plan, f"plain_ack_{rate}", f"{title}, plain aiokafka", plain)
            except (CheckFailed, PeerFailed) as error:
                report.failures.append(f"{title}: {error}")
                plan.report(report.failures[-1])
                return


def _add_latency(report: Report, plan: Plan, name: str, title: str, latency: Latency) -> None:
    report.add_latency(name, title, latency.p50_ms, latency.p99_ms)
    late = report.add_figure(f"{name}{LATE_SUFFIX}", f"{title}, of which the generator's own lateness, p99", "ms")
    late.series.values.append(latency.late_p99_ms)
    plan.report(f"{title}: p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms")


# Reading back


def fill_events(server: Server, plan: Plan, records: int) -> None:
    """Put numbered JSON messages of one publisher into a server's log. Raises: CheckFailed, PeerFailed"""
    layout = PublishLayout(qos=1, payload_bytes=plan.payload_bytes, is_json=True)
    connection = connect_mqtt(server.mqtt_port, "bench-filler")
    block = PublishBlock(layout, FILL_WINDOW)
    publisher = Publisher(connection, "filler", block, window=FILL_WINDOW, is_acked=True)
    with contextlib.closing(Load([publisher], [])) as load:
        load.fill(records, TIMEOUT_S)


def read_events(
    server: Server, records: int, collector: NumberCollector | None, beside_cpu_s: Callable[[], float]
) -> LoadResult:
    """One reader from the beginning, until it has all. Raises: CheckFailed, PeerFailed"""
    begun_s = time.perf_counter()
    connection, body, is_chunked = open_events(server.http_port, "topic=%23&since=0")
    scanner = collector or EventScanner("reader")
    reader = EventReader(connection, "reader", body=body, is_chunked=is_chunked, scanner=scanner)
    with contextlib.closing(Load([], [reader])) as load:
        result = load.read(
            messages=records,
            seconds=TIMEOUT_S,
            server_cpu_s=server.cpu_s,
            beside_cpu_s=beside_cpu_s,
            begun_s=begun_s,
        )
    if result.messages != records:
        raise CheckFailed(f"loss: of {records:,} events {result.messages:,} came in {TIMEOUT_S:.0f} s")
    if collector is not None:
        collector.judge(records, TOPIC_COUNT)
    return result


def _bench_events(plan: Plan, report: Report, broker: KafkaBroker, key: str, partitions: int) -> None:
    records = int(EVENTS_A_SECOND * plan.seconds)
    title = f"{records:,} records from Kafka → SSE, 1 reader from the beginning, {_partitions(partitions)}"
    row = report.add_row(Row(key, title, baseline=PLAIN))
    with contextlib.ExitStack() as stack:
        topic = stack.enter_context(KafkaTopic(broker.bootstrap, partitions).kept())
        places = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=data_root())))
            for _ in range(2)
        ]
        stored = [(topic.peer(), "kafka", places[0]), (PEERS[HEADRACE], "sqlite", places[1])]
        for peer, storage, place in stored:
            with running(peer, storage=storage, directory=place) as server:
                fill_events(server, plan, records)

        def read(peer: Peer, storage: str, place: Path) -> LoadResult:
            is_kafka = storage == "kafka"
            collector = NumberCollector("reader") if is_kafka and partitions > 1 else None
            with running(peer, storage=storage, directory=place) as server:
                return read_events(server, records, collector, broker.cpu_s if is_kafka else lambda: 0.0)

        runs: dict[str, Callable[[], LoadResult]] = {
            HEADRACE: partial(read, *stored[0]),
            PLAIN: partial(_consume_plainly, broker, topic, records),
            STORED_LABEL: partial(read, *stored[1]),
        }
        ceiling = partial(run_sse_ceiling, SSE_SCENARIOS["sse_1"], plan)
        measure_runs(row, plan, runs, ceiling, bare=(PLAIN,))


def _consume_plainly(broker: KafkaBroker, topic: KafkaTopic, records: int) -> LoadResult:
    return _plain_result(run_plain("consume", TIMEOUT_S, bootstrap=broker.bootstrap, topic=topic.name, records=records))


# An outage


def _bench_spool(plan: Plan, report: Report, broker: KafkaBroker) -> None:
    if not broker.can_be_stopped:
        plan.report("spool: not measured, for it needs a Kafka that may be stopped")
        return
    scenario = _scenario("kafka_spool", f"QoS 1 from {PUBLISHERS} publishers, spooled while Kafka is stopped")
    row = report.add_row(Row(scenario.key, scenario.title, baseline=STORED_LABEL))
    drain = report.add_figure("kafka_drain", "records a second from the spool to Kafka, once it is back", "/s")

    def spool() -> LoadResult:
        try:
            result, rate = _spool_and_drain(scenario, plan, broker)
        finally:
            if broker.pid is None:
                broker.start()
        drain.series.values.append(rate)
        plan.report(f"{drain.title}: {rate:,.0f}/s")
        return result

    runs: dict[str, Callable[[], LoadResult]] = {
        HEADRACE: spool,
        STORED_LABEL: partial(_publish_to_sqlite, scenario, plan),
    }
    measure_runs(row, plan, runs, partial(run_ceiling, scenario, plan))


def _spool_and_drain(scenario: Scenario, plan: Plan, broker: KafkaBroker) -> tuple[LoadResult, float]:
    with KafkaTopic(broker.bootstrap, PARTITIONS[-1]).kept() as topic, running(topic.peer()) as server:
        broker.stop()
        _wait_for_spool(server)
        result = _run_publishers(scenario, plan, server)
        watching = starting_plain(
            "watch", bootstrap=broker.bootstrap, topic=topic.name, records=result.sent, wait_s=TIMEOUT_S
        )
        with watching as finish:
            broker.start()
            drained = finish(TIMEOUT_S + 5)
        topic.check(result.sent)
    return result, drained["messages"] / max(drained["seconds"], 1e-9)


def _wait_for_spool(server: Server) -> None:
    """Until what is published goes to the spool. Raises: PeerFailed"""
    deadline = time.monotonic() + MODE_TIMEOUT_S
    while bench_stream(server)["spool"]["state"] != "spooling":
        if time.monotonic() > deadline:
            raise PeerFailed(f"after {MODE_TIMEOUT_S:.0f} s without Kafka the stream is not spooled")
        time.sleep(0.05)
