"""Settings of a node: flags win over the file, and the file is refused unless all of it is understood."""

from pathlib import Path

import pytest

from odsi_proto.errors import ConfigError
from odsi_proto.node.identity_files import ephemeral_signer
from odsi_proto.node.settings import FILE_BYTES_MAX, KV_MIB_MAX, THREADS_MAX, Listen, NodeSettings
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange
from odsi_proto.wire.identity import participant_text

SIGNER = ephemeral_signer(now_s=1_800_000_000)
PEER = f"{participant_text(SIGNER.participant)}@192.0.2.8:4433[10-20]"


def default_model() -> Path:
    return Path("default.gguf")


def test_every_key_of_a_file_becomes_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        'model = "model.gguf"\nmanifest = "/abs/m.json"\nlayers = "0-10"\nlisten = "[::1]:4433"\n'
        f'identity = "id.json"\npeer = ["{PEER}"]\nthreads = 2\nkv-mib = 64\n'
        'congestion = "cubic"\nuplink-mbit = 20\n'
    )

    assert NodeSettings.read(file) == NodeSettings(
        model=tmp_path / "model.gguf",
        manifest=Path("/abs/m.json"),
        layers=LayerRange(0, 10),
        listen=Listen(host="::1", port=4433),
        identity=tmp_path / "id.json",
        peers=(Peer.parse(PEER),),
        threads=2,
        kv_mib=64,
        congestion="cubic",
        uplink_mbit=20,
    )


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")

    assert NodeSettings.read(tmp_path / "node.toml") == NodeSettings()


def test_a_tilde_stands_for_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")

    assert NodeSettings.parse('model = "~/m.gguf"', source=Path("x.toml")).model == Path("/home/a/m.gguf")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('layer = "0-10"', "unknown key 'layer': expected one of model, "),
        ('kv_mib = "64"', "unknown key 'kv_mib'"),
        ("[node]\nthreads = 1", "unknown key 'node'"),
        ("layers = 10", "layers: 10 is not a string"),
        ('layers = "10-0"', "layers: layers 10-0: expected LO-HI"),
        ('listen = "4433"', "listen: '4433' is not an address to listen on"),
        ('listen = "host:65536"', "listen: 'host:65536' is not an address"),
        ('peer = "x"', "peer: 'x' is not an array of strings"),
        ('peer = ["x"]', "peer: 'x' is not a peer"),
        ("peer = [1]", "peer: 1 is not a string"),
        ('congestion = "bbr"', "'bbr' is no congestion controller: expected one of reno, cubic, delay"),
        ("threads = true", "threads: True is not an integer"),
        ('threads = "2"', "threads: '2' is not an integer"),
        ("threads = 1.5", "threads: 1.5 is not an integer"),
        ("threads = 0", "threads: 0 is out of range: expected 1-1024"),
        ("uplink-mbit = 1000001", "uplink-mbit: 1000001 is out of range: expected 1-1000000"),
        ("threads = ", "is not TOML"),
        ("threads = 1\nthreads = 2", "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
    ],
)
def test_what_is_not_understood_is_refused_by_file_and_key(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "node.toml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        NodeSettings.read(tmp_path / "node.toml")

    assert str(tmp_path / "node.toml") in str(caught.value)
    assert reason in str(caught.value)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b'model = "\xe9"')

    with pytest.raises(ConfigError, match="is not TOML: 'utf-8'"):
        NodeSettings.read(tmp_path / "node.toml")


def test_a_file_is_read_up_to_its_largest_size(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("#".ljust(FILE_BYTES_MAX, "x"))

    assert NodeSettings.read(tmp_path / "node.toml") == NodeSettings()


def test_a_larger_file_is_not_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("#".ljust(FILE_BYTES_MAX + 1, "x"))

    with pytest.raises(ConfigError, match=f"larger than {FILE_BYTES_MAX} bytes"):
        NodeSettings.read(tmp_path / "node.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"can not read {tmp_path}/none\.toml: No such file"):
        NodeSettings.read(tmp_path / "none.toml")


def test_flags_win_field_by_field() -> None:
    flags = NodeSettings(threads=4, peers=(Peer.parse(PEER),))
    file = NodeSettings(threads=2, kv_mib=64)

    assert flags.over(file) == NodeSettings(threads=4, kv_mib=64, peers=(Peer.parse(PEER),))


def test_defaults_are_those_of_the_node() -> None:
    config = NodeSettings(layers=LayerRange(0, 10)).config(signer=SIGNER, default_model=default_model)

    assert (config.host, config.port) == ("127.0.0.1", 0)
    assert (config.model, config.manifest, config.peers) == (Path("default.gguf"), None, ())
    assert (config.threads, config.kv_bytes_max) == (1, 1 << 30)


def test_the_default_model_is_not_looked_for_when_one_is_given() -> None:
    def unavailable() -> Path:
        raise AssertionError("asked for the default model")

    settings = NodeSettings(model=Path("given.gguf"), layers=LayerRange(0, 1))

    assert settings.config(signer=SIGNER, default_model=unavailable).model == Path("given.gguf")


def test_memory_is_given_in_mib() -> None:
    settings = NodeSettings(layers=LayerRange(0, 1), kv_mib=3)

    assert settings.config(signer=SIGNER, default_model=default_model).kv_bytes_max == 3 * 1_048_576


def test_layers_have_no_default() -> None:
    with pytest.raises(ConfigError, match="no layers: give --layers LO-HI"):
        NodeSettings().config(signer=SIGNER, default_model=default_model)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (NodeSettings(threads=0), f"threads is 0: expected 1-{THREADS_MAX}"),
        (NodeSettings(threads=THREADS_MAX + 1), "threads is 1025"),
        (NodeSettings(uplink_mbit=0), "uplink-mbit is 0"),
        (NodeSettings(kv_mib=0), "kv-mib is 0"),
        (NodeSettings(kv_mib=KV_MIB_MAX + 1), f"kv-mib is {KV_MIB_MAX + 1}"),
    ],
)
def test_numbers_have_bounds(settings: NodeSettings, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        NodeSettings(layers=LayerRange(0, 1)).over(settings).config(
            signer=SIGNER, default_model=default_model
        )


def test_numbers_are_accepted_at_their_bounds() -> None:
    settings = NodeSettings(layers=LayerRange(0, 1), threads=THREADS_MAX, kv_mib=KV_MIB_MAX)

    assert settings.config(signer=SIGNER, default_model=default_model).threads == THREADS_MAX


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:4433", "::1", 4433),
        ("node.example:65535", "node.example", 65_535),
    ],
)
def test_addresses_to_listen_on(text: str, host: str, port: int) -> None:
    assert Listen.parse(text) == Listen(host=host, port=port)


@pytest.mark.parametrize("text", ["", "host", ":1", "::1:4433", "host:", "host:x", "a b:1", "host:123456"])
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an address to listen on"):
        Listen.parse(text)
