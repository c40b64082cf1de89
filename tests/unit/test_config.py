"""Configuration: layers, defaults, and mistakes told with their place."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from bridge.cli.check_config import config_lines, remarks, toml_value
from bridge.config import Config
from bridge.config_section import Section, key_names
from bridge.config_source import ConfigError, load_config
from bridge.config_text import key_lines
from bridge.ingest.intake import IntakeLimits
from bridge.live.limits import LiveLimits
from bridge.quantities import Address, age_text, parse_age_ms, parse_size, size_text
from broker.config import BrokerConfig
from scripts import write_default_config

ROOT = Path(__file__).parents[2]


def problems(tmp_path: Path, text: str, **environment: str) -> list[str]:
    """What is wrong with a file, without its directory."""
    file = tmp_path / "headrace.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, environment)
    return [each.replace(f"{tmp_path}/", "") for each in caught.value.problems]


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **flags: str) -> Config:
    """A configuration from a file's text."""
    file = tmp_path / "headrace.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environment or {}, {f"--{name}": value for name, value in flags.items()})


def test_nothing_configured_listens_on_loopback_and_keeps_everything() -> None:
    """Contract §1, §3."""
    config = load_config(None, {})
    assert config.mqtt_address == Address("127.0.0.1", 1883)
    assert config.websocket_address == Address("127.0.0.1", 8083)
    assert config.http_address == Address("127.0.0.1", 8000)
    assert [stream.name for stream in config.streams] == ["system", "default"]
    default = config.streams[-1]
    assert (default.topics, default.storage, default.ack) == (("#",), "sqlite", "stored")
    assert (default.retention.age_ms, default.retention.bytes) == (24 * 3_600_000, 1 << 30)


def test_environment_beats_the_file_and_a_flag_beats_both(tmp_path: Path) -> None:
    text = '[mqtt]\nbind = "127.0.0.1:1"\npacket_bytes_max = "2MiB"\n'
    config = load(tmp_path, text, {"HEADRACE_MQTT__BIND": "127.0.0.1:2"})
    assert (config.mqtt_address.port, config.mqtt.packet_bytes_max) == (2, 2 << 20)
    config = load(tmp_path, text, {"HEADRACE_MQTT__BIND": "127.0.0.1:2"}, mqtt="127.0.0.1:3")
    assert config.mqtt_address.port == 3


def test_brokers_may_be_named_in_one_text() -> None:
    config = load_config(None, {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": "a:9092, b:9092"})
    assert config.kafka.bootstrap_servers == ("a:9092", "b:9092")


def test_environment_takes_tables_and_lists_as_toml() -> None:
    config = load_config(
        None,
        {
            "HEADRACE_STREAMS": '[{name = "a", topics = ["x/#"], retention = {age = "7d"}}]',
            "HEADRACE_HTTP__ALLOWED_ORIGINS": '["https://a.example"]',
            "HEADRACE_DEFAULT_STREAM": "false",
            "HEADRACE_TOKEN": "somebody else's",
        },
    )
    assert [stream.name for stream in config.streams] == ["a", "system"]
    assert config.streams[0].retention.age_ms == 7 * 86_400_000
    assert config.streams[0].retention.bytes is None
    assert config.broker_config().allowed_origins == ("https://a.example",)


def test_unknown_key_is_named_with_line_and_nearest_key(tmp_path: Path) -> None:
    text = 'default_stream = true\n\n[[streams]]\nname = "t"\ntopics = ["a/#"]\n\nretension = { age = "7d" }\n'
    assert problems(tmp_path, text) == [
        'headrace.toml line 7: [[streams]] has no key "retension". Did you mean "retention"?'
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[mqt]\na = 1\n", 'headrace.toml line 1: the configuration has no section [mqt]. Did you mean "mqtt"?'),
        ("defalt_stream = true\n", 'headrace.toml line 1: the configuration has no key "defalt_stream". Did you'),
        (
            '[[streams]]\nname="a"\ntopics=["a"]\nretention = {agee="1d"}',
            'line 4: [[streams]] retention has no key "agee"',
        ),
        ("[mqtt.tls]\nbind = 'x'\n", "headrace.toml line 1: [mqtt.tls] is not available in this version."),
        ("[kafka]\nrequird = true\n", 'headrace.toml line 2: [kafka] has no key "requird". Did you mean "required"?'),
        (
            '[[streams]]\nname="a"\ntopics=["a"]\nstorage="kafka"\nkafka={partition=3}',
            'line 5: [[streams]] kafka has no key "partition". Did you mean "partitions"?',
        ),
        ("[[acl]]\nwho = '*'\n", "headrace.toml line 1: [acl] is not available in this version."),
        ('[auth]\npassword_file = "x"\n', '[auth] key "password_file" is not available in this version.'),
        (
            '[mqtt]\npacket_bytes_max = "1 megabyte"\n',
            'line 2: [mqtt] packet_bytes_max: "1 megabyte" is not a size',
        ),
        ("[mqtt]\npacket_bytes_max = 10\n", "line 2: [mqtt] packet_bytes_max: must be at least 1,024."),
        ('[mqtt]\nbind = "1883"\n', 'line 2: [mqtt] bind: "1883" is not an address; write HOST:PORT'),
        ('[log]\nlevel = "loud"\n', 'line 2: [log] level: must be "debug", "info", "warn" or "error".'),
        ("[mqtt\n", "headrace.toml line 1: not valid TOML: "),
        ('[[streams]]\ntopics = ["a"]\n', "line 1: [[streams]] name: is missing."),
        ("data = 5\n", "line 1: data: must be a text, in quotes."),
        ("default_stream = 5\n", "line 1: default_stream: must be true or false."),
        ("mqtt = 5\n", "line 1: mqtt: must be a table, with keys of its own."),
        ("streams = 5\n", "line 1: streams: must be tables, each under [[streams]]."),
        ("[mqtt]\nreceive_maximum = 1.5\n", "line 2: [mqtt] receive_maximum: must be a whole number."),
        ('[mqtt]\nreceive_maximum = "many"\n', "line 2: [mqtt] receive_maximum: must be a whole number."),
        ("[mqtt]\nreceive_maximum = inf\n", "line 2: [mqtt] receive_maximum: must be a"),
        ("[kafka]\nsasl_plain_username = 5\n", "line 2: [kafka] sasl_plain_username: must be a text, in quotes."),
        ("[http]\nallowed_origins = [5]\n", "line 2: [http] allowed_origins: must be a text, in quotes."),
        ('[[streams]]\nname = "a"\ntopics = "a"', 'line 3: [[streams]] topics: must be a list, like ["a", "b"].'),
        ('[[streams]]\nname = "a"\ntopics = []', "line 3: [[streams]] topics: must have at least 1."),
        (
            '[[streams]]\nname = "a"\ntopics = ["a"]\nretention = "1d"',
            "line 4: [[streams]] retention: must be a table, with keys of its own.",
        ),
        ('[[streams]]\nname = "a"\ntopics = ["a"]\nkafka = 1', "line 4: [[streams]] kafka: must be a table, with"),
    ],
)
def test_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ('topics = ["a/#/b"]', "is not a topic filter: "),
        ('topics = ["$SYS/#"]', "topics below $SYS are not stored"),
        ('topics = ["a"]\nkafka = {}', 'kafka: stream "a" has storage = "sqlite".'),
        ('topics = ["a"]\nstorage = "kafka"\nkafka = {topic = "a b"}', '"a b" is no topic name of Kafka'),
        (
            'topics = ["a"]\nstorage = "kafka"\nkafka = {topic = "__consumer_offsets"}',
            "topics that begin so are Kafka's own",
        ),
        (
            'topics = ["a"]\nstorage = "kafka"\nkafka = {topic_template = "x/{foo}"}',
            '"{foo}" in "x/{foo}" makes no topic',
        ),
        ('topics = ["a"]\nstorage = "kafka"\nkafka = {topic_template = "x/#"}', '"#" in "x/#" makes no topic name'),
        ('topics = ["a"]\nstorage = "kafka"\nkafka = {topic_template = ""}', "it makes no topic name"),
        ('topics = ["a"]\nstorage = "kafka"\nkafka = {key = "{client}"}', "key: {client} is none of {topic}"),
        (
            'topics = ["a"]\nstorage = "kafka"\nretention = {age = "1h"}\n[kafka]\nspool_age_s_max = "1h"',
            "is kept no longer than [kafka] spool_age_s_max",
        ),
        ('topics = ["a"]\ndeliver = "committed"', 'deliver = "committed" is not available in this version.'),
    ],
)
def test_stream_that_cannot_be(tmp_path: Path, stream: str, expected: str) -> None:
    found = problems(tmp_path, f'[[streams]]\nname = "a"\n{stream}\n')
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        ("age = 0", "[[streams]] retention age: 0 keeps nothing; leave it out for no such limit."),
        ("age = -1", "[[streams]] retention age: -1 keeps nothing"),
        ("age = 0.0001", "[[streams]] retention age: 0.0001 keeps nothing"),
        ('bytes = "0KiB"', '[[streams]] retention bytes: "0KiB" keeps nothing'),
        ("bytes = -5", "[[streams]] retention bytes: -5 keeps nothing"),
        ('age = "999999999999999999d"', 'retention age: "999999999999999999d" is more than 100,000 d.'),
        ('bytes = "999999999999TiB"', 'retention bytes: "999999999999TiB" is more than 1048576 TiB.'),
        (f"bytes = {2**63}", "is more than"),
        ("age = inf", "retention age: inf is more than 100,000 d."),
        ("age = -inf", "retention age: -inf is more than 100,000 d."),
        ("age = nan", "retention age: nan is not an age"),
    ],
)
def test_retention_that_cannot_be(tmp_path: Path, retention: str, expected: str) -> None:
    """With nothing kept, devices would be acknowledged for what is deleted at once."""
    (found,) = problems(tmp_path, f'[[streams]]\nname = "a"\ntopics = ["a"]\nretention = {{ {retention} }}\n')
    assert found.startswith("headrace.toml line 4: [[streams]] retention ")
    assert expected in found


@pytest.mark.parametrize(
    "text",
    [
        "[store]\nhold_s = inf",
        "[live]\nheartbeat_s = inf",
        "[live]\nheartbeat_s = nan",
        '[http]\nhead_timeout_s = "' + "9" * 400 + 's"',
        f"[kafka]\nspool_age_s_max = {10**400}",
        "[kafka]\nspool_age_s_max = 0",
        '[mqtt]\nqueued_bytes_max = "' + "9" * 400 + 'TiB"',
    ],
)
def test_number_that_is_none_or_too_large_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith("headrace.toml line 2: [")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b", "use letters, digits"),
        ("system", "is built in"),
        ("default", "set default_stream = false"),
    ],
)
def test_stream_name_that_cannot_be(tmp_path: Path, name: str, expected: str) -> None:
    assert expected in problems(tmp_path, f'[[streams]]\nname = "{name}"\ntopics = ["a"]\n')[0]


def test_stream_named_twice(tmp_path: Path) -> None:
    text = '[[streams]]\nname = "a"\ntopics = ["a"]\n\n[[streams]]\nname = "a"\ntopics = ["b"]\n'
    assert problems(tmp_path, text) == ['headrace.toml line 6: [[streams]] name "a" is used twice.']


def test_default_may_be_replaced(tmp_path: Path) -> None:
    text = 'default_stream = false\n[[streams]]\nname = "default"\ntopics = ["#"]\nstorage = "memory"\n'
    assert [stream.name for stream in load(tmp_path, text).streams] == ["default", "system"]


def test_more_streams_than_a_cursor_holds(tmp_path: Path) -> None:
    text = "".join(f'[[streams]]\nname = "{"s" * 50}{number}"\ntopics = ["{number}"]\n' for number in range(30))
    assert "do not fit into a cursor" in problems(tmp_path, text)[0]


def test_unknown_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"HEADRACE_MQTT__BNID": "127.0.0.1:1"})
    assert caught.value.problems == ['environment HEADRACE_MQTT__BNID: [mqtt] has no key "bnid". Did you mean "bind"?']


def test_variable_of_another_program_is_left_alone() -> None:
    load_config(None, environment={"HEADRACE_COLOUR": "red", "HEADRACE_HOME": "/srv"})


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("HEADRACE_DATTA", "Did you mean HEADRACE_DATA?"),
        ("HEADRACE_DEFAULTSTREAM", "Did you mean HEADRACE_DEFAULT_STREAM?"),
        ("HEADRACE_MQQT__BIND", "Did you mean HEADRACE_MQTT__BIND?"),
        ("HEADRACE_MQTT_BIND", "Did you mean HEADRACE_MQTT__BIND?"),
        ("HEADRACE_LOG__LEVEL__X", "Did you mean HEADRACE_LOG__LEVEL?"),
        ("HEADRACE_DATA__X", "Did you mean HEADRACE_DATA?"),
        ("HEADRACE_MQTT_PORT", "Did you mean HEADRACE_"),
        ("HEADRACE_MQQT__SERVICE_HOST", "One is called HEADRACE_SECTION__KEY."),
        ("HEADRACE_COLOURS__RED", "One is called HEADRACE_SECTION__KEY."),
    ],
)
def test_variable_that_is_no_setting_is_named_with_the_nearest(variable: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {variable: "s3cret"})
    (problem,) = caught.value.problems
    assert problem.startswith(f"environment {variable}: there is no such setting. ")
    assert expected in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADRACE_TOKEN", "t"),
        ("HEADRACE_COMPILED", "0"),
        ("HEADRACE_SERVICE_HOST", "10.0.0.1"),
        ("HEADRACE_KAFKA_SERVICE_PORT_TCP_CLIENT", "9092"),
        ("HEADRACE_PORT", "tcp://10.0.0.1:1883"),
        ("HEADRACE_MQTT_PORT_1883_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_are_for_others_are_left_alone(variable: str, value: str) -> None:
    """Commands read the first two; Kubernetes sets the others beside a service of that name."""
    assert load_config(None, {variable: value}) == load_config(None, {})


def test_variable_with_the_password_of_another_broker_may_have_any_name(tmp_path: Path) -> None:
    text = (
        '[[egress]]\nname = "e"\nbroker = "mqtt://h"\ntopics = ["#"]\n'
        'username = "u"\npassword_env = "HEADRACE_PLANT_PASSWORD"\n'
    )
    assert load(tmp_path, text, {"HEADRACE_PLANT_PASSWORD": "p"}).egress_tables[0].username == "u"


@pytest.mark.parametrize("section", ["mqtt", "websocket", "http"])
def test_environment_takes_an_ipv6_address(section: str) -> None:
    config = load_config(None, {f"HEADRACE_{section.upper()}__BIND": "[::1]:2000"})
    assert getattr(config, section).bind == Address("::1", 2000)


def test_environment_takes_kafka_brokers_by_ipv6_address() -> None:
    for text in ("[::1]:9092,[::1]:9094", '["[::1]:9092", "[::1]:9094"]'):
        config = load_config(None, {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": text})
        assert config.kafka.bootstrap_servers == ("[::1]:9092", "[::1]:9094")


@pytest.mark.parametrize("password", ["[s3cret", "{s3cret", "[1]", '{a = "s3cret"}', "s3cret"])
def test_password_may_begin_with_a_bracket(password: str) -> None:
    assert load_config(None, {"HEADRACE_KAFKA__SASL_PLAIN_PASSWORD": password}).kafka.sasl_plain_password == password


def test_value_of_a_variable_that_is_no_list_is_not_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"HEADRACE_HTTP__ALLOWED_ORIGINS": "[s3cret"})
    (problem,) = caught.value.problems
    assert problem.startswith("environment HEADRACE_HTTP__ALLOWED_ORIGINS: [http] allowed_origins: must be ")
    assert "s3cret" not in problem


@pytest.mark.parametrize("address", ["0.0.0.0:1883", "192.168.1.20:1883", "[::]:1883", "broker.example:1883"])
def test_address_open_to_others_without_users_is_an_error(address: str) -> None:
    """Contract §3."""
    with pytest.raises(ConfigError, match=r"^--mqtt: .*allow_anonymous"):
        load_config(None, {}, {"--mqtt": address})
    allowed = load_config(None, {"HEADRACE_AUTH__ALLOW_ANONYMOUS": "true"}, {"--mqtt": address})
    assert not allowed.mqtt_address.is_loopback


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1883", "[::1]:1883", "localhost:1883"])
def test_loopback_addresses_need_no_users(address: str) -> None:
    assert load_config(None, {}, {"--mqtt": address}).mqtt_address.is_loopback


def test_empty_bind_means_the_default() -> None:
    assert load_config(None, {"HEADRACE_MQTT__BIND": ""}).mqtt_address == Address("127.0.0.1", 1883)


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("headrace", "/headrace"), ("/headrace/", "/headrace"), ("/a/b", "/a/b"), ("//a//", "/a")],
)
def test_root_path_has_one_form(tmp_path: Path, text: str, path: str) -> None:
    assert load(tmp_path, f'[http]\nroot_path = "{text}"\n').http.root_path == path


@pytest.mark.parametrize("text", ["https://a.example/headrace", "/a/../b", "/a//b", "/a b", "/a?b", "/%41"])
def test_what_is_no_root_path(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, f'[http]\nroot_path = "{text}"\n')
    assert found == f'headrace.toml line 2: [http] root_path: "{text}" is not a path; write it like /headrace.'


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("*", "*"),
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_origin_has_the_form_that_browsers_send(tmp_path: Path, text: str, origin: str) -> None:
    """HTTP compares it as it is, and so does MQTT over WebSocket."""
    assert load(tmp_path, f'[http]\nallowed_origins = ["{text}"]\n').http.allowed_origins == (origin,)


@pytest.mark.parametrize(
    "text",
    ["a.example", "a.example:80", "null", "//a.example", "https://", "https://a/b", "https://u@a", "https://a:x"],
)
def test_what_is_no_origin(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, f'[http]\nallowed_origins = ["{text}"]\n')
    assert found.startswith(f'headrace.toml line 2: [http] allowed_origins: "{text}" is not an origin; write SCHEME://')


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nothing\.toml: no such file"):
        load_config(tmp_path / "nothing.toml", {})


def test_memory_stream_acknowledges_on_receipt_and_keeps_64_mib(tmp_path: Path) -> None:
    """Contract §1."""
    stream = load(tmp_path, '[[streams]]\nname = "m"\ntopics = ["m/#"]\nstorage = "memory"\n').streams[0]
    assert (stream.ack, stream.retention.bytes, stream.retention.age_ms) == ("received", 64 << 20, None)


@pytest.mark.parametrize("settings", [BrokerConfig, LiveLimits, IntakeLimits])
def test_every_limit_of_the_parts_is_a_key_with_the_same_default(settings: type) -> None:
    config = Config()
    made = {BrokerConfig: config.broker_config, LiveLimits: config.live_limits, IntakeLimits: config.intake_limits}
    keys = {key for name in Config.model_fields for key in _keys(getattr(config, name))}
    for field in fields(settings):
        if field.name not in {"tcp_bind", "websocket_bind"}:
            assert field.name in keys, f"{settings.__name__}.{field.name} has no configuration key"
            assert getattr(made[settings](), field.name) == getattr(settings(), field.name), field.name


def _keys(value: object) -> list[str]:
    return key_names(type(value)) if isinstance(value, Section) else []


def test_documented_file_is_what_the_settings_say() -> None:
    assert write_default_config.FILE.read_text(encoding="utf-8") == write_default_config.text(), (
        "config/headrace.toml is not up to date: .venv/bin/python scripts/write_default_config.py"
    )


def test_documented_file_is_valid_as_it_is_and_with_every_line_uncommented(tmp_path: Path) -> None:
    text = write_default_config.text()
    assert load_config(write_default_config.FILE, {}) == Config()
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# [[") or (" = " in line and not line.endswith(".")) else line
        for line in text.splitlines()
    )
    values = tomllib.loads(uncommented)
    assert set(values) == set(key_names(Config))
    values["auth"]["allow_anonymous"] = True  # the defaults that are shown for `bind` are those with users
    config = Config.model_validate(values)
    assert config.streams[0].retention.age_ms == 7 * 86_400_000
    for name in Config.model_fields:
        section, default = getattr(config, name), getattr(Config(), name)
        if isinstance(section, Section):
            changed = {
                key
                for key in type(section).model_fields
                if getattr(default, key) is not None and getattr(section, key) != getattr(default, key)
            }
            assert changed <= {"allow_anonymous"}, f"[{name}] shows another default than the settings have"


@pytest.mark.parametrize("name", ["kafka.toml", "laptop.toml", "lan.toml"])
def test_examples_are_valid(name: str) -> None:
    load_config(ROOT / "config" / name, {})


ALL_KINDS = """\
data = "a\\u007fb\\u0001\\"\\\\"
[mqtt]
bind = "127.0.0.1:1884"
queued_bytes_max = 1001
connect_timeout_s = "1m"
[http]
head_timeout_s = 599.99996
allowed_origins = ["https://a.example"]
[live]
heartbeat_s = 1.1
[kafka]
sasl_plain_password = "secret"
spool_age_s_max = "1h"
request_timeout_s = 0.1e2
[[streams]]
name = "a"
topics = ["a/#", "\\u007f"]
retention = { age = "1500ms", bytes = 5000 }
[[streams]]
name = "m"
topics = ["m"]
storage = "memory"
[[streams]]
name = "k"
topics = ["k"]
storage = "kafka"
kafka = { key = "{client_id}", create = false }
[[ingest]]
name = "i"
broker = "mqtt://h"
topics = ["#"]
connect_timeout_s = 0.0016e3
[[egress]]
name = "e"
broker = "mqtts://g"
topics = ["b"]
"""


@pytest.mark.parametrize(
    "text", ["", ALL_KINDS, 'default_stream = false\n[[streams]]\nname = "default"\ntopics = ["#"]\n']
)
def test_effective_configuration_can_be_read_back(tmp_path: Path, text: str) -> None:
    config = load(tmp_path, text)
    printed = "\n".join((*config_lines(config), *remarks(config)))
    again = load(tmp_path, printed)
    assert "\n".join((*config_lines(again), *remarks(again))) == printed.replace('\n# sasl_plain_password = "…"', "")
    for name in (
        "data_dir",
        "log",
        "live",
        "history",
        "store",
        "presence",
        "streams",
        "ingest_tables",
        "egress_tables",
    ):
        assert getattr(again, name) == getattr(config, name)
    assert again.http.head_timeout_s == config.http.head_timeout_s
    assert "secret" not in printed


@pytest.mark.parametrize("value", [599.99996, 1.1, 0.1, 1e-05, 12.5, 3.0, 123456789.0])
def test_a_float_is_written_exactly(value: float) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}")["a"] == value


def test_check_config_says_what_has_no_stream(tmp_path: Path) -> None:
    config = load(tmp_path, 'default_stream = false\n[[streams]]\nname = "a"\ntopics = ["a/#"]\n')
    assert any("A topic that no stream above matches reaches MQTT subscribers only" in line for line in remarks(config))


def test_line_finder_knows_tables_arrays_and_long_strings() -> None:
    text = '[a]\nb = """\nc = 1\n"""\nd.e = 2\n[[f]]\ng = 1\n[[f]]\n"h i" = 2\n[f.j]\nk = 1\n'
    assert key_lines(text) == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "d", "e"): 5,
        ("f",): 6,
        ("f", 0): 6,
        ("f", 0, "g"): 7,
        ("f", 1): 8,
        ("f", 1, "h i"): 9,
        ("f", 1, "j"): 10,
        ("f", 1, "j", "k"): 11,
    }


@pytest.mark.parametrize(
    ("text", "size"), [("1MiB", 1 << 20), ("10 GiB", 10 << 30), (5, 5), ("7", 7), ("1.5KiB", 1536), ("2MB", 2_000_000)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 apple", True, None, 1.5, "1.3B"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "age_ms"), [("7d", 7 * 86_400_000), ("24h", 86_400_000), ("30m", 1_800_000), (90, 90_000), ("500ms", 500)]
)
def test_ages(text: object, age_ms: int) -> None:
    assert parse_age_ms(text) == age_ms


@pytest.mark.parametrize("text", ["", "d", "1 fortnight", True, None, "-5s"])
def test_what_is_no_age(text: object) -> None:
    with pytest.raises(ValueError, match="is not an age"):
        parse_age_ms(text)


def test_quantities_as_people_read_them() -> None:
    assert [size_text(size) for size in (1 << 30, 64 << 20, 1_000, 1536)] == [
        "1 GiB",
        "64 MiB",
        "1,000 bytes",
        "1,536 bytes",
    ]
    assert [age_text(age) for age in (86_400_000, 7 * 86_400_000, 90_000, 5)] == ["24 h", "7 d", "90 s", "5 ms"]


@pytest.mark.parametrize("text", ["", "1883", ":1883", "host:", "host:port", "host:70000", "::1:1883", None])
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        Address.parse(text)


def test_addresses_are_written_as_they_are_read() -> None:
    for text in ("127.0.0.1:1883", "[::1]:0", "localhost:65535"):
        assert str(Address.parse(text)) == text


def test_an_ingest_needs_little_and_has_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, '[[ingest]]\nname = "p"\nbroker = "broker.example"\ntopics = ["a/#"]\nshare = "g"\n')
    table = config.ingest_tables[0]
    assert (str(table.broker), table.subscribed, table.qos) == ("mqtt://broker.example:1883", ("$share/g/a/#",), 1)
    printed = tomllib.loads("\n".join(config_lines(config)))
    assert printed["ingest"][0]["broker"] == "mqtt://broker.example:1883"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('name = "a b"', 'name: "a b": use letters'),
        ('broker = "http://x"', "is not a broker's address"),
        ('broker = "mqtt://u:p@x"', "has no user in it"),
        ('topics = ["a/#/b"]', "is not a topic filter"),
        ('topics = ["$share/g/a"]', "the name of the group as share"),
        ('topics = ["$SYS/#"]', "only the server itself publishes"),
        ('remove_prefix = "x/"', 'does not begin with "x/"'),
        ('prefix = "a/+/"', "cannot begin a topic"),
        ('prefix = "$SYS/"', "only the server itself publishes"),
        ('share = "a/b"', "is no share name"),
        ('password_file = "f"', "a password needs a user name"),
        ('username = "u"\npassword_file = "f"\npassword_env = "E"', "not both"),
        ('ca_file = "f"', "is not encrypted"),
        ('broker = "mqtts://x"\nkey_file = "f"', "belong together"),
        ("qos = 3", "qos: must be 0, 1 or 2"),
        ('topic = "x"', 'Did you mean "topics"?'),
    ],
)
def test_mistakes_in_an_ingest_are_named(tmp_path: Path, line: str, text: str) -> None:
    keys = {"name": '"p"', "broker": '"mqtt://x"', "topics": '["a/#"]'}
    rest = [f"{key} = {value}" for key, value in keys.items() if not line.startswith(f"{key} ")]
    found = problems(tmp_path, "\n".join(["[[ingest]]", *rest, line]))
    assert text in found[0], found
    assert "headrace.toml line " in found[0]


def test_two_ingests_have_two_names(tmp_path: Path) -> None:
    table = '[[ingest]]\nname = "p"\nbroker = "x"\ntopics = ["a"]\n'
    assert 'name "p" is used twice' in problems(tmp_path, table + table)[0]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("qos = 3", "qos: must be 0, 1 or 2"),
        ('since = "yesterday"', "is no time"),
        ("inflight_max = 0", "must be at least 1"),
    ],
)
def test_mistakes_in_an_egress_are_named(tmp_path: Path, line: str, text: str) -> None:
    table = f'[[egress]]\nname = "p"\nbroker = "x"\ntopics = ["a/#"]\n{line}\n'
    assert text in problems(tmp_path, table)[0]


@pytest.mark.parametrize(
    ("ingest", "egress", "circles"),
    [
        ('topics = ["#"]', 'topics = ["a"]', True),
        ('topics = ["b/#"]', 'topics = ["a/#"]', False),
        ('topics = ["b/#"]', 'topics = ["a/#"]\nprefix = "b/"', True),
        ('topics = ["b/#"]', 'topics = ["b/#"]\nremove_prefix = "b/"', True),
        ('topics = ["b/#"]', 'topics = ["b/a/#"]\nremove_prefix = "b/"', False),
    ],
)
def test_a_circle_that_3_1_1_could_not_break_is_refused(
    tmp_path: Path, ingest: str, egress: str, circles: bool
) -> None:
    tables = (
        f'[[ingest]]\nname = "i"\nbroker = "x"\n{ingest}\n[[egress]]\nname = "e"\nbroker = "mqtt://x:1883"\n{egress}\n'
    )
    load(tmp_path, tables)
    if circles:
        assert "takes back" in problems(tmp_path, tables + 'version = "3.1.1"\n')[0]
    else:
        load(tmp_path, tables + 'version = "3.1.1"\n')


def test_an_egress_whose_topics_are_in_no_stream_is_remarked(tmp_path: Path) -> None:
    text = 'default_stream = false\n[[egress]]\nname = "e"\nbroker = "x"\ntopics = ["a/#"]\n'
    assert any("nothing of it is sent" in line for line in remarks(load(tmp_path, text)))
