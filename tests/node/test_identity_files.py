"""Identity files: secrets are created once, with mode 0600, and only what fits together is loaded."""

import json
import os
import stat
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from odsi_proto.errors import ConfigError, IdentityError
from odsi_proto.limits import Limits
from odsi_proto.node.identity_files import (
    FILE_BYTES_MAX,
    VALID_DAYS_MAX,
    NewIdentity,
    cold_path,
    default_identity_path,
    ephemeral_signer,
    load_signer,
)

NOW_S = 1_800_000_000
DAY_S = 86_400


@pytest.fixture
def hot_file(tmp_path: Path) -> Path:
    file = tmp_path / "identity.json"
    NewIdentity.generate(now_s=NOW_S, valid_days=1).write(file)
    return file


def tamper(file: Path, **changes: object) -> None:
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, **changes}))


def test_a_written_identity_loads_as_the_same_signer(tmp_path: Path) -> None:
    identity = NewIdentity.generate(now_s=NOW_S)
    identity.write(tmp_path / "a.json")

    signer = load_signer(tmp_path / "a.json", now_s=NOW_S)

    assert signer.delegation == identity.signer.delegation
    assert bytes(signer.hot_key) == bytes(identity.signer.hot_key)


def test_the_cold_file_holds_the_participants_own_key(tmp_path: Path) -> None:
    identity = NewIdentity.generate(now_s=NOW_S)
    cold_file = identity.write(tmp_path / "a.json")

    seed = bytes.fromhex(json.loads(cold_file.read_text())["cold_key_seed"])

    assert cold_file.name == "a.json.cold"
    assert bytes(SigningKey(seed).verify_key) == identity.signer.participant


def test_the_hot_file_does_not_hold_the_cold_seed(tmp_path: Path) -> None:
    identity = NewIdentity.generate(now_s=NOW_S)
    identity.write(tmp_path / "a.json")

    assert bytes(identity.cold_key).hex() not in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_both_files_have_mode_0600_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        cold_file = NewIdentity.generate(now_s=NOW_S).write(tmp_path / "a.json")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(cold_file.stat().st_mode) == 0o600


def test_missing_directories_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    NewIdentity.generate(now_s=NOW_S).write(tmp_path / "odsi" / "a.json")

    assert stat.S_IMODE((tmp_path / "odsi").stat().st_mode) == 0o700


def test_an_existing_hot_file_is_not_overwritten(hot_file: Path) -> None:
    before = hot_file.read_bytes()

    with pytest.raises(IdentityError, match=r"identity\.json exists and is never overwritten: move it away"):
        NewIdentity.generate(now_s=NOW_S).write(hot_file)

    assert hot_file.read_bytes() == before


def test_an_existing_cold_file_is_not_overwritten_and_no_hot_file_is_left(tmp_path: Path) -> None:
    cold_path(tmp_path / "a.json").write_text("precious")

    with pytest.raises(IdentityError, match=r"a\.json\.cold exists"):
        NewIdentity.generate(now_s=NOW_S).write(tmp_path / "a.json")

    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IdentityError, match="exists"):
        NewIdentity.generate(now_s=NOW_S).write(tmp_path / "a.json")

    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(IdentityError, match=r"can not create .*file"):
        NewIdentity.generate(now_s=NOW_S).write(tmp_path / "file" / "a.json")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o700, 0o400])
def test_other_permissions_are_refused_with_the_command_that_mends_them(hot_file: Path, mode: int) -> None:
    hot_file.chmod(mode)

    with pytest.raises(IdentityError, match=rf"permissions {mode:04o}, expected 0600: run `chmod 600 "):
        load_signer(hot_file, now_s=NOW_S)


def test_a_missing_file_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"no identity file .*none\.json: make one with"):
        load_signer(tmp_path / "none.json", now_s=NOW_S)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="not a regular file"):
        load_signer(tmp_path, now_s=NOW_S)


def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(IdentityError, match="not a regular file"):
        load_signer(tmp_path / "pipe", now_s=NOW_S)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * FILE_BYTES_MAX, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "format None"),
        (b'{"format": "odsi-hot-identity-2"}', "format 'odsi-hot-identity-2'"),
        (b" " * (FILE_BYTES_MAX + 1), f"larger than {FILE_BYTES_MAX} bytes"),
    ],
)
def test_other_files_are_not_identity_files(hot_file: Path, content: bytes, reason: str) -> None:
    hot_file.write_bytes(content)

    with pytest.raises(IdentityError, match=rf"identity\.json is not an identity file: {reason}"):
        load_signer(hot_file, now_s=NOW_S)


def test_a_file_of_the_largest_size_loads(hot_file: Path) -> None:
    hot_file.write_text(hot_file.read_text().ljust(FILE_BYTES_MAX))

    load_signer(hot_file, now_s=NOW_S)


def test_a_cold_file_is_not_taken_for_a_hot_one(hot_file: Path) -> None:
    with pytest.raises(IdentityError, match="is a cold key: give the hot file"):
        load_signer(cold_path(hot_file), now_s=NOW_S)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("hot_key_seed", None, "hot_key_seed is missing or not a string"),
        ("hot_key_seed", "xyz", "hot_key_seed is not hexadecimal"),
        ("hot_key_seed", "00" * 31, "hot_key_seed has 31 bytes, expected 32"),
        ("hot_key_seed", "00" * 32, "the hot key is not the one that the delegation names"),
        ("delegation", 7, "delegation is missing or not a string"),
        ("delegation", "00", "the delegation can not be trusted"),
    ],
)
def test_a_damaged_field_is_named(hot_file: Path, key: str, value: object, reason: str) -> None:
    tamper(hot_file, **{key: value})

    with pytest.raises(IdentityError, match=rf"identity\.json: {reason}"):
        load_signer(hot_file, now_s=NOW_S)


def test_a_delegation_whose_signature_was_changed_is_refused(hot_file: Path) -> None:
    delegation = json.loads(hot_file.read_text())["delegation"]
    tamper(hot_file, delegation=delegation[:-2] + f"{int(delegation[-2:], 16) ^ 1:02x}")

    with pytest.raises(IdentityError, match="not signed by its participant"):
        load_signer(hot_file, now_s=NOW_S)


def test_a_delegation_loads_until_peers_would_refuse_it(hot_file: Path) -> None:
    load_signer(hot_file, now_s=NOW_S + DAY_S + Limits().clock_skew_s - 1)

    with pytest.raises(IdentityError, match=r"expired on 2027-01-16 08:00 UTC: make a new identity"):
        load_signer(hot_file, now_s=NOW_S + DAY_S + Limits().clock_skew_s)


def test_a_delegation_of_the_future_points_at_the_clock(hot_file: Path) -> None:
    load_signer(hot_file, now_s=NOW_S - Limits().clock_skew_s)

    with pytest.raises(IdentityError, match="not valid yet: is this machine's clock right"):
        load_signer(hot_file, now_s=NOW_S - Limits().clock_skew_s - 1)


@pytest.mark.parametrize("days", [0, VALID_DAYS_MAX + 1])
def test_validity_has_bounds(days: int) -> None:
    with pytest.raises(ConfigError, match=f"identity of {days} days"):
        NewIdentity.generate(now_s=NOW_S, valid_days=days)


def test_the_longest_validity_is_accepted() -> None:
    NewIdentity.generate(now_s=NOW_S, valid_days=VALID_DAYS_MAX)


def test_ephemeral_signers_differ() -> None:
    assert ephemeral_signer(now_s=NOW_S).participant != ephemeral_signer(now_s=NOW_S).participant


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/xdg", "HOME": "/home/a"}, "/xdg/odsi/identity.json"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/home/a"}, "/home/a/.config/odsi/identity.json"),
        ({"HOME": "/home/a"}, "/home/a/.config/odsi/identity.json"),
    ],
)
def test_the_default_place_follows_the_xdg_specification(environment: dict[str, str], expected: str) -> None:
    assert default_identity_path(environment) == Path(expected)


def test_without_a_home_there_is_no_default_place() -> None:
    with pytest.raises(IdentityError, match="neither XDG_CONFIG_HOME nor HOME"):
        default_identity_path({})
