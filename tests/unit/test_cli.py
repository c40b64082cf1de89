"""The command line: help, exit codes, and errors that say what to do. What runs a server is in tests/integration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.cli.main import DEBUGGABLE
from bridge.cli.simulate import progress_text
from bridge.config_source import load_config
from bridge.quantities import Address
from bridge.start_checks import (
    CannotStart,
    check_data_directory,
    check_ports,
    in_use_text,
    listening_text,
    open_socket,
    shown,
)
from bridge.streams.sqlite_schema import DataDirectoryInUse
from devices.fleet import Progress

COMMANDS = ["serve", "check-config", "simulate", "demo", "replay", "streams", "backup", "restore", "bench"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    exit_code = main(arguments)
    printed = capsys.readouterr()
    return exit_code, printed.out, printed.err


def test_help_names_every_command_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = run(capsys, "--help")
    assert exit_code == 0
    assert out.startswith("Headrace: MQTT in, a replayable log in between, a browser at the other end.\n")
    for command in COMMANDS:
        assert f"  {command} " in out


@pytest.mark.parametrize("command", ["passwd", "token"])
def test_commands_of_later_versions_are_absent(capsys: pytest.CaptureFixture[str], command: str) -> None:
    exit_code, _, err = run(capsys, command)
    assert exit_code == 2
    assert command in err
    assert f"  {command}" not in run(capsys, "--help")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    exit_code, out, _ = run(capsys, command, "--help")
    assert exit_code == 0
    assert "Usage: headrace" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--frob"), "error: No such option: --frob"),
        (("nonsense",), "error: No such command 'nonsense'. See: headrace --help"),
        (("serve", "--log", "xml"), "error: Invalid value for '--log'"),
        (("serve", "-c", "nothing.toml"), "error: cannot read the configuration nothing.toml: no such file"),
        (("serve", "--mqtt", "0.0.0.0:1883"), "error: --mqtt: 0.0.0.0:1883 can be reached by other computers"),
        (("serve", "--mqtt", "1883"), 'error: --mqtt: [mqtt] bind: "1883" is not an address'),
        (("simulate", "--qos", "3"), "error: Invalid value for '--qos'"),
        (("simulate", "--broker", "http://x"), "error: http://x is not a broker's address"),
        (("simulate", "--broker", "mqtt://x:1", "--transport", "ws"), "but --transport says ws"),
        (("simulate", "--from", "nothing.csv"), "error: cannot read nothing.csv: no such file or directory."),
    ],
)
def test_wrong_usage_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    exit_code, _, err = run(capsys, *arguments)
    assert exit_code == 2
    assert expected in err
    assert "Traceback" not in err


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, out, _ = run(capsys)
    assert exit_code == 2
    assert "Start here: headrace demo" in out


def test_check_config_prints_what_is_in_effect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text('[[streams]]\nname = "a"\ntopics = ["a/#"]\nretention = { age = "7d" }\n')
    exit_code, out, _ = run(capsys, "check-config", "-c", str(file), "--data", "elsewhere")
    assert exit_code == 0
    assert 'data = "elsewhere"' in out
    assert 'name = "a"\ntopics = ["a/#"]\nstorage = "sqlite"\nack = "stored"\nretention = { age = "7d" }' in out
    assert 'bind = "127.0.0.1:1883"' in out


def test_check_config_reports_every_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text('[mqtt]\nbnid = "a"\n[http]\nbody_bytes_max = "big"\n')
    exit_code, out, err = run(capsys, "check-config", "-c", str(file))
    assert (exit_code, out) == (2, "")
    assert err.splitlines() == [
        f'error: {file} line 2: [mqtt] has no key "bnid". Did you mean "bind"?',
        f'error: {file} line 4: [http] body_bytes_max: "big" is not a size; '
        'write bytes, or like "64KiB", "1MiB", "10GiB".',
    ]


def test_simulate_without_a_broker_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with open_socket(Address("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
        exit_code, _, err = run(capsys, "simulate", "--broker", f"mqtt://127.0.0.1:{port}", "--devices", "1")
    assert exit_code == 1
    assert f"error: no broker answers at mqtt://127.0.0.1:{port}: connection refused." in err


def test_debug_is_named_where_it_exists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr("bridge.config_source.load_config", fail)
    monkeypatch.setattr("bridge.cli.check_config.load_config", fail)
    monkeypatch.setattr("bridge.cli.serve.load_config", fail)
    text = "error: ZeroDivisionError: no. This is a mistake in Headrace"
    assert run(capsys, "check-config") == (1, "", f"{text}.\n")
    assert run(capsys, "serve") == (1, "", f"{text}; --debug shows where it happened.\n")
    having = [command for command in COMMANDS if "--debug" in run(capsys, command, "--help")[1]]
    assert sorted(having) == sorted(DEBUGGABLE)


def test_bench_without_numpy_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    exit_code, _, err = run(capsys, "bench", "idle")
    assert exit_code != 0
    assert "pip install 'headrace[bench]'" in err


def test_port_in_use_names_its_owner() -> None:
    with open_socket(Address("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        text = listening_text(OSError(), [("mqtt", Address("127.0.0.1", port))], "serve")
    assert text.startswith(f"port {port} on 127.0.0.1 is in use by ")
    assert text.endswith(f"Stop it, or choose another: headrace serve --mqtt 127.0.0.1:{port + 1}")


@pytest.mark.parametrize(
    ("binds", "expected"),
    [
        (
            {"mqtt": "127.0.0.1:5000", "ws": "127.0.0.1:5000"},
            "port 5000 on 127.0.0.1 is in use by this server itself (--mqtt). "
            "Choose another: headrace serve --ws 127.0.0.1:5001",
        ),
        (
            {"mqtt": "127.0.0.1:5000", "http": "localhost:5000"},
            "port 5000 on localhost is in use by this server itself",
        ),
        (
            {"ws": "0.0.0.0:5000", "http": "127.0.0.1:5000"},
            "(--ws). Choose another: headrace serve --http 127.0.0.1:5001",
        ),
    ],
)
def test_one_port_for_two_kinds_is_told(binds: dict[str, str], expected: str) -> None:
    environment = {"HEADRACE_AUTH__ALLOW_ANONYMOUS": "true"}
    config = load_config(None, environment, {f"--{kind}": bind for kind, bind in binds.items()})
    with pytest.raises(CannotStart) as caught:
        check_ports(config, "serve")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "binds",
    [
        {"mqtt": "127.0.0.1:0", "ws": "127.0.0.1:0", "http": "127.0.0.1:0"},
        {"mqtt": "127.0.0.1:5000", "ws": "127.0.0.2:5000"},
        {"mqtt": "0.0.0.0:5000", "ws": "[::]:5000"},
        {"mqtt": "nowhere.invalid:5000", "ws": "nowhere.invalid:5000"},
    ],
)
def test_addresses_that_do_not_meet_are_left_alone(binds: dict[str, str]) -> None:
    environment = {"HEADRACE_AUTH__ALLOW_ANONYMOUS": "true"}
    check_ports(load_config(None, environment, {f"--{kind}": bind for kind, bind in binds.items()}), "serve")


def test_address_of_another_computer_cannot_be_listened_on() -> None:
    text = listening_text(OSError(), [("http", Address("192.0.2.1", 8000))], "serve")
    assert text == "192.0.2.1 is not an address of this computer. Choose one that is: --http 127.0.0.1:8000"


def test_second_instance_is_named_with_pid_and_time(tmp_path: Path) -> None:
    text = in_use_text(Path("data"), DataDirectoryInUse(tmp_path, 4711, "2020-01-02T03:04:05Z"))
    assert text.startswith("./data is in use by headrace (pid 4711, since ")
    assert text.endswith("). Stop it, or use another --data.")


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(CannotStart, match="is a file, not a directory"):
        check_data_directory(tmp_path / "data")


def test_data_directory_is_made(tmp_path: Path) -> None:
    check_data_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_data_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_data_directory(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_data_directory_without_permission_names_owner_and_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so what the system answers is given here."""
    monkeypatch.setattr("os.access", lambda *_: False)
    tmp_path.chmod(0o755)
    with pytest.raises(CannotStart, match=r"cannot write to .* \(owner .*, mode 755; you are .*\)\. Choose another"):
        check_data_directory(tmp_path)


def test_old_sqlite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge import start_checks

    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 31, 0))
    monkeypatch.setattr("sqlite3.sqlite_version", "3.31.0")
    with pytest.raises(CannotStart, match=r"this Python has SQLite 3\.31\.0; Headrace needs 3\.35 \(2021\)"):
        start_checks.check_sqlite()


def test_paths_are_shown_as_they_are_typed() -> None:
    assert [shown(Path(text)) for text in ("data", "./data", "/var/lib/x", "../x")] == [
        "./data",
        "./data",
        "/var/lib/x",
        "../x",
    ]


def test_progress_line() -> None:
    line = progress_text(Progress(devices=50, online=49, sent=6_000, acknowledged=5_990, left_out=3, rate=99.6))
    assert line.split("  ", 1)[1] == "49 online  100 msg/s  6,000 sent  5,990 acknowledged  3 left out"


def test_another_brokers_configuration_is_printed_as_ours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is printed is a configuration; what is missing stands on top of it, and is counted on standard error."""
    file = tmp_path / "mosquitto.conf"
    file.write_text("max_keepalive 60\nuser mosquitto\n", encoding="utf-8")
    exit_code, out, err = run(capsys, "check-config", "--from", str(file))
    assert exit_code == 0
    assert "#   line 2: user mosquitto: start it as that user" in out
    assert err == f"{file}: 1 line has no equivalent and stands on top, with what to do instead.\n"
    made = tmp_path / "headrace.toml"
    made.write_text(out, encoding="utf-8")
    exit_code, out, _ = run(capsys, "check-config", "-c", str(made))
    assert exit_code == 0
    assert "keep_alive_s_max = 60" in out


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.conf", None, "error: cannot read "),
        ("a.yaml", "a: [1", "not valid YAML"),
        ("a.yml", "- 1", "no mapping"),
    ],
)
def test_a_configuration_that_cannot_be_taken_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, text: str | None, expected: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    exit_code, out, err = run(capsys, "check-config", "--from", str(tmp_path / name))
    assert (exit_code, out) == (2, "")
    assert expected in err


def test_another_brokers_configuration_is_read_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    exit_code, _, err = run(capsys, "check-config", "--from", "m.conf", "-c", "x.toml")
    assert exit_code == 2
    assert "--from reads FILE alone" in err
