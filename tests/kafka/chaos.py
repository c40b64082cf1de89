"""Chaos: random faults of Kafka, the network, Headrace and its readers, from a seed, while everything is checked.

    make chaos DURATION=1200 SEED=7        (python -m tests.kafka.chaos --duration 1200 --seed 7)

Devices publish to two streams on Kafka and to an embedded one. Live readers with cursors judge every event as it comes.
Between bouts of faults all is left in peace for a moment: then each acknowledged message must be in Kafka once, in
order for its key, and with every reader, once; in the end in the history too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.kafka.preparation import prepare
from tests.kafka.streams import kafka_table, stream_table
from tests.support.conditions import ConditionNeverHeld, eventually
from tests.support.faulty_proxy import FaultyProxy
from tests.support.flow import Flow
from tests.support.kafka import KafkaBroker, KafkaCluster, KafkaDistribution
from tests.support.kafka_client import KafkaRecord, blocking, unique_topic
from tests.support.ledger import Ledger, LedgerReader
from tests.support.server import ServerProcess

BOUT_S = 25.0
"""Of faults, between two looks at everything."""
PEACE_S = 90.0
"""For all to come right again: brokers elect leaders, the spool is drained, readers catch up."""
STREAMS = {"sensors": ("{topic}", 3), "events": ("{client_id}", 2)}
"""On Kafka: key and partitions."""
STDERR_LINES = 40


class ChaosServer(ServerProcess):
    """`headrace serve` with two streams on Kafka; small batches, so that a drain has many phases."""

    def __init__(self, data_directory: Path, kafka: KafkaCluster) -> None:
        self.kafka_topics = {name: unique_topic(f"chaos-{name}") for name in STREAMS}
        tables = "".join(
            stream_table(name, f"{name}/#", self.kafka_topics[name], partitions, f', key = "{key}"')
            for name, (key, partitions) in STREAMS.items()
        )
        table = kafka_table(kafka.proxied_bootstrap_servers, "batch_records_max = 100\ndrain_records_max = 400")
        super().__init__(data_directory, tables + table)

    def describe(self) -> dict[str, Any]:
        """Both streams as the API shows them."""
        answer = httpx.get(f"{self.http_url}/api/v1/streams", timeout=20)
        assert answer.status_code == 200, answer.text
        return {stream["name"]: stream for stream in answer.json()["streams"] if stream["name"] in STREAMS}

    @property
    def is_drained(self) -> bool:
        """Whether all is in Kafka."""
        streams = self.describe().values()
        return all(stream["kafka"]["state"] == "up" and not stream["spool"]["records"] for stream in streams)


@dataclass
class Report:
    """What happened."""

    seed: int
    started: float = field(default_factory=time.monotonic)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """The course of events, for whoever looks for a cause."""
    evidence: list[str] = field(default_factory=list)
    looks: int = 0
    is_loud: bool = False

    def say(self, text: str) -> None:
        """Note something that was done or seen."""
        line = f"{time.monotonic() - self.started:8.2f} {text}"
        self.lines.append(line)
        if self.is_loud:
            print(line, flush=True)


class Chaos:
    """One run. `with Chaos(directory, seed) as chaos: chaos.run(120)`"""

    def __init__(self, directory: Path, seed: int, brokers: int = 1, is_loud: bool = False) -> None:
        self.chance = random.Random(seed)
        self.report = Report(seed, is_loud=is_loud)
        self.kafka = KafkaCluster(directory / "kafka", brokers, behind_proxy=True)
        self.server = ChaosServer(directory / "data", self.kafka)
        self.flows: list[Flow] = []
        self.readers: list[LedgerReader] = []
        self.in_kafka: dict[str, Ledger] = {}
        self._kafka_offsets: dict[str, dict[int, int]] = {name: {} for name in STREAMS}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Chaos:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.kafka)
            server = stack.enter_context(self.server)
            self.mqtt_proxy = stack.enter_context(FaultyProxy(server.mqtt_port))
            self.http_proxy = stack.enter_context(FaultyProxy(server.http_port))
            self.flows = [
                Flow(server, "sensors/a", rate=200),
                Flow(server, "sensors/b", rate=100, padding=1_000, port=self.mqtt_proxy.port),
                Flow(server, "events/c", topics=4, rate=150),
                Flow(server, "plain/d", topics=2, rate=30),
            ]
            shaky_url = f"http://127.0.0.1:{self.http_proxy.port}"
            wanted: list[tuple[str, str, Sequence[str], list[Flow]]] = [
                ("steady", server.http_url, ["sensors/#"], self.flows[:2]),
                ("everything", server.http_url, ["sensors/#", "events/#", "plain/#"], self.flows),
                ("absent", server.http_url, ["sensors/a/+", "events/#"], [self.flows[0], self.flows[2]]),
                ("shaky", shaky_url, ["sensors/#", "events/c/+"], self.flows[:3]),
            ]
            for name, url, topics, flows in wanted:
                self.readers.append(stack.enter_context(LedgerReader(name, url, topics, flows)))
            eventually(lambda: all(reader.last_event_id for reader in self.readers), 30, "a first cursor")
            self.in_kafka = {
                name: Ledger(f"Kafka {name}", [flow for flow in self.flows if flow.topics[0].startswith(name)])
                for name in STREAMS
            }
            for flow in self.flows:
                stack.enter_context(flow)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for broker in self.kafka.brokers:
            broker.resume()
        self._stack.close()

    # The whole of it.

    def run(self, duration_s: float) -> Report:
        """Bouts of faults and moments of peace, until the time is over or something is wrong."""
        report = self.report
        report.say(f"seed {report.seed}, {len(self.kafka.brokers)} brokers")
        end = report.started + duration_s
        try:
            is_last = False
            while not is_last and not report.wrong:
                self._bout(min(end, time.monotonic() + BOUT_S))
                is_last = time.monotonic() >= end  # a look takes its time, and messages go on behind one that is not
                self._look(is_last=is_last)
            if not report.wrong:
                self._look_at_history()
        except Exception as error:  # told with the seed and all that led to it
            report.wrong.append(f"{type(error).__name__}: {error}")
        if report.wrong:
            report.evidence = self._evidence()
        return report

    def _bout(self, end: float) -> None:
        while time.monotonic() < end and not self._wrong_so_far():
            before = sum(flow.count for flow in self.flows)
            eventually(lambda b=before: sum(flow.count for flow in self.flows) > b, PEACE_S, "acknowledgements")  # type: ignore[misc]
            self._wait(self.chance.uniform(0.2, 2.0))
            self._fault()

    def _fault(self) -> None:
        """One fault, and now and then another one while it lasts."""
        lasting, sudden = self._lasting(), self._sudden()
        name = self.chance.choice(list(lasting))
        if self.chance.random() < 0.35:
            name = self.chance.choice(list(sudden))
            self._do(name, sudden[name])
            return
        with lasting[name]():
            self._note(name)
            self._wait(self.chance.choice([0.1, 1.0, 3.0, 8.0]) * self.chance.uniform(0.5, 1.5))
            for _ in range(self.chance.choice([0, 0, 1, 2])):
                other = self.chance.choice(list(sudden))
                self._do(other, sudden[other])
                self._wait(self.chance.uniform(0.0, 3.0))
        self.report.say(f"{name} is over")

    def _do(self, name: str, action: Callable[[], object]) -> None:
        self._note(name)
        action()

    def _note(self, name: str) -> None:
        self.report.faults[name] += 1
        self.report.say(f"{name} ({sum(flow.count for flow in self.flows)} acknowledged)")

    @staticmethod
    def _wait(seconds: float) -> None:
        time.sleep(seconds)  # a fault takes its time: this is what chaos does, not a test that hopes

    # Faults.

    def _lasting(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[None]]]:
        faults: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            "a broker is killed": lambda: self._down(KafkaBroker.kill, 1),
            "a broker is stopped": lambda: self._down(KafkaBroker.stop, 1),
            "a broker hangs": self._hangs,
            "a network hangs": self._black_hole,
            "a network refuses": self._refuses,
            "a reader is slow": self._slow,
            "a reader stays away": self._away,
        }
        if len(self.kafka.brokers) > 1:
            faults["a leader is killed"] = lambda: self._down(KafkaBroker.kill, 0)
            faults["two brokers are killed"] = lambda: self._down(KafkaBroker.kill, 2)
        return faults

    def _sudden(self) -> dict[str, Callable[[], object]]:
        return {
            "Headrace is killed": self._kill_server,
            "Headrace is killed twice": lambda: (self._kill_server(), self._kill_server()),
            "Headrace is killed while it drains": self._kill_server_in_drain,
            "Headrace is restarted": self.server.restart,
            "Kafka's connections are cut": lambda: [
                broker.proxy.cut(with_reset=self.chance.random() < 0.5) for broker in self.kafka.brokers
            ],
            "a batch is cut": lambda: self._any_broker().proxy.cut_after_to_target(self.chance.randrange(50, 50_000)),
            "an answer is cut": lambda: self._any_broker().proxy.cut_after(self.chance.randrange(50, 50_000)),
            "a reader is cut": lambda: self.http_proxy.cut(with_reset=self.chance.random() < 0.5),
            "an event is cut": lambda: self.http_proxy.cut_after(self.chance.randrange(1, 50_000)),
            "a device is cut": lambda: self.mqtt_proxy.cut(with_reset=self.chance.random() < 0.5),
        }

    def _any_broker(self) -> KafkaBroker:
        return self.chance.choice(self.kafka.brokers)

    @contextlib.contextmanager
    def _down(self, how: Callable[[KafkaBroker], None], count: int) -> Iterator[None]:
        """So many brokers; 0: the leader of some partition."""
        if count:
            brokers = self.chance.sample(self.kafka.brokers, count)
        else:
            name = self.chance.choice(list(STREAMS))
            partition = self.chance.randrange(STREAMS[name][1])
            brokers = [self.kafka.leader_of(self.server.kafka_topics[name], partition)]
        for broker in brokers:
            how(broker)
        try:
            yield
        finally:
            for broker in brokers:
                broker.spawn()
            self.kafka.wait_until_ready(len(self.kafka.brokers))

    @contextlib.contextmanager
    def _hangs(self) -> Iterator[None]:
        broker = self._any_broker()
        broker.pause()
        try:
            yield
        finally:
            broker.resume()

    @contextlib.contextmanager
    def _black_hole(self) -> Iterator[None]:
        proxies = [broker.proxy for broker in self.kafka.brokers]
        chosen = self.chance.choice([proxies, [self.chance.choice(proxies)]])
        for proxy in chosen:
            proxy.black_hole()
        try:
            yield
        finally:
            for proxy in chosen:
                proxy.black_hole(False)

    @contextlib.contextmanager
    def _refuses(self) -> Iterator[None]:
        for broker in self.kafka.brokers:
            broker.proxy.refuse()
            broker.proxy.cut(with_reset=True)
        try:
            yield
        finally:
            for broker in self.kafka.brokers:
                broker.proxy.refuse(False)

    @contextlib.contextmanager
    def _slow(self) -> Iterator[None]:
        self.http_proxy.slow_down(self.chance.choice([5_000, 20_000, 60_000]))
        try:
            yield
        finally:
            self.http_proxy.slow_down(0)

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        reader = self.readers[2]
        reader.stay_away()
        try:
            yield
        finally:
            reader.come_back()

    def _kill_server(self) -> None:
        self.server.kill()
        self._wait(self.chance.choice([0.0, 0.0, 1.0]))
        self.server.start()

    def _kill_server_in_drain(self) -> None:
        """At some moment of the drain, when there is one."""
        end = time.monotonic() + 3
        with contextlib.suppress(httpx.HTTPError):
            while time.monotonic() < end:
                states = [stream["spool"]["state"] for stream in self.server.describe().values()]
                if "draining" in states:
                    self._wait(self.chance.uniform(0.0, 0.1))
                    break
        self._kill_server()

    # Looks.

    def _wrong_so_far(self) -> bool:
        report = self.report
        for ledger in [*[reader.ledger for reader in self.readers], *self.in_kafka.values()]:
            report.wrong += [text for text in ledger.faults if text not in report.wrong]
        others = ["a traceback in the server's log"] if "Traceback" in self.server.stderr_text else []
        others += [f"{flow.topics[0]}: {flow.refused} publishes were refused" for flow in self.flows if flow.refused]
        report.wrong += [text for text in others if text not in report.wrong]
        return bool(report.wrong)

    def _look(self, is_last: bool) -> None:
        """Peace: no faults, no new messages; all must come right."""
        if self._wrong_so_far():
            return
        for flow in self.flows:
            flow.pause()
        self.report.say("a look at everything")
        waits: list[tuple[str, Callable[[], bool], Callable[[], object]]] = [
            ("acknowledgements", lambda: not any(flow.unacknowledged for flow in self.flows), lambda: ""),
            ("the spool to be empty", lambda: self.server.is_drained, self.server.describe),
        ]
        for reader in self.readers:
            ledger = reader.ledger
            waits.append((ledger.where, lambda each=ledger: not each.lacks(), ledger.lacking_text))  # type: ignore[misc]
        for name, condition, details in waits:
            try:
                eventually(condition, PEACE_S, interval_s=0.1)
            except ConditionNeverHeld:
                self.report.wrong.append(f"{name}: not within {PEACE_S:g} s; {details()}")
                return
        for name in STREAMS:
            self._look_into_kafka(name)
        self._wrong_so_far()
        self.report.looks += 1
        counts = ", ".join(f"{reader.ledger.where} {reader.ledger.count}" for reader in self.readers)
        self.report.say(f"{sum(flow.count for flow in self.flows)} acknowledged; {counts}")
        if not is_last:
            for flow in self.flows:
                flow.go_on()

    def _look_into_kafka(self, name: str) -> None:
        """Fold what has come into Kafka since the last look into its ledger."""
        ledger, offsets = self.in_kafka[name], self._kafka_offsets[name]
        records = blocking(self.kafka.client.read_all(self.server.kafka_topics[name], from_offsets=offsets))
        orders: dict[bytes, int] = {}
        for record in records:
            topic = (record.header["mqtt.topic"] or b"").decode()
            number = int(record.value or b"-1")
            ledger.take(topic, number, f"{record.partition}/{record.offset} ({record.header['mqtt.id']!r})")
            if name == "events":
                self._look_at_order(ledger, record, topic, number, orders)
            offsets[record.partition or 0] = record.offset + 1
        for text in [ledger.lacking_text()] if ledger.lacks() else []:
            ledger.fault(text)

    def _look_at_order(
        self, ledger: Ledger, record: KafkaRecord, topic: str, number: int, orders: dict[bytes, int]
    ) -> None:
        """A client's key keeps the order of all its topics: they take turns."""
        (flow,) = [flow for flow in self.flows if topic in flow.topics]
        turn = number * len(flow.topics) + flow.topics.index(topic)
        key = record.key or b""
        if turn <= orders.get(key, -1):
            ledger.fault(f"{topic} {number} comes after turn {orders[key]} of {key!r}")
        orders[key] = turn

    def _look_at_history(self) -> None:
        for name, ledger in self.in_kafka.items():
            flows = [flow for flow in self.flows if flow.topics[0].startswith(name)]
            history = Ledger(f"history of {name}", flows)
            url = f"{self.server.http_url}/api/v1/streams/{name}/records"
            with httpx.stream("GET", url, params={"format": "ndjson", "order": "asc"}, timeout=120) as answer:
                for line in answer.iter_lines():
                    record = json.loads(line)
                    place = f"{record['epoch']}/{record['partition']}/{record['offset']}"
                    history.take(record["topic"], int(str(record["payload"])), place)
            if history.lacks():
                history.fault(history.lacking_text())
            if history.count != ledger.count:
                history.fault(f"{history.count} records, and {ledger.count} in Kafka")
            self.report.wrong += history.faults

    def _evidence(self) -> list[str]:
        """What the server says when something is wrong."""
        lines = [f"{reader.ledger.where}: {reader}" for reader in self.readers]
        with contextlib.suppress(httpx.HTTPError):
            system = httpx.get(f"{self.server.http_url}/api/v1/system", timeout=10).json()
            lines += [f"reader {json.dumps(reader)}" for reader in system["readers"]]
            lines += [json.dumps(stream) for stream in self.server.describe().values()]
        return [*lines, *self.server.stderr_text.splitlines()[-STDERR_LINES:]]


def summary(chaos: Chaos) -> str:
    """The counts of a run."""
    report = chaos.report
    rows = [(name, str(count)) for name, count in sorted(report.faults.items())]
    rows += [
        ("acknowledged", str(sum(flow.count for flow in chaos.flows))),
        ("longest wait for an acknowledgement", f"{max(flow.longest_wait_s for flow in chaos.flows):.1f} s"),
        *[(f"events of reader {reader.ledger.where}", str(reader.ledger.count)) for reader in chaos.readers],
        *[(f"connections of reader {reader.ledger.where}", str(reader.connections)) for reader in chaos.readers],
        *[(f"records in {ledger.where}", str(ledger.count)) for ledger in chaos.in_kafka.values()],
        ("looks at everything", str(report.looks)),
        ("seconds", f"{time.monotonic() - report.started:.0f}"),
        ("seed", str(report.seed)),
        ("wrong", str(len(report.wrong))),
    ]
    return "\n".join(f"{name:44} {value:>10}" for name, value in rows)


def main() -> int:
    """0: all held. 1: something did not; the text says what, after which course of events."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--duration", type=float, default=1_200, help="seconds of faults (default 1200)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: another each time")
    parser.add_argument("--brokers", type=int, choices=(1, 3), help="default: one or three, as the seed has it")
    arguments = parser.parse_args()
    prepare(KafkaDistribution())
    brokers = arguments.brokers or random.Random(arguments.seed).choice([1, 3])
    with (
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as directory,
        Chaos(Path(directory), arguments.seed, brokers, is_loud=True) as chaos,
    ):
        report = chaos.run(arguments.duration)
        print("\n".join([*report.evidence, summary(chaos)]))
    for text in report.wrong:
        print(f"WRONG {text}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
