"""``odsi identity``: make and show identities."""

import os
import time
from pathlib import Path

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import FILE, examples, json_option
from odsi_proto.node.identity_files import (
    VALID_DAYS_DEFAULT,
    VALID_DAYS_MAX,
    NewIdentity,
    default_identity_path,
    expiry_text,
    load_signer,
)
from odsi_proto.wire.identity import Signer, participant_text


@click.group(epilog=examples("odsi identity new", "odsi identity show"))
def identity() -> None:
    """Make and show identities."""


@identity.command(epilog=examples("odsi identity new", "odsi identity new --out node-a.json --valid-days 90"))
@click.option("--out", type=FILE, help="File to create. Default: ~/.config/odsi/identity.json.")
@click.option(
    "--valid-days",
    type=click.IntRange(1, VALID_DAYS_MAX),
    default=VALID_DAYS_DEFAULT,
    show_default=True,
    help="How long the hot key may act for the participant.",
)
@json_option
def new(out: Path | None, valid_days: int, as_json: bool) -> None:
    """Make a participant's key, and a hot key that acts for it.

    Two files are created, readable by you alone. FILE is all that a node or a client needs.
    FILE.cold holds the participant's own key: keep it offline, it is what an identity is.
    """
    file = out or default_identity_path(os.environ)
    fresh = NewIdentity.generate(now_s=int(time.time()), valid_days=valid_days)
    cold_file = fresh.write(file)
    human = (
        f"participant {participant_text(fresh.signer.participant)}\n"
        f"  {file}: its hot key, valid until {expiry_text(fresh.signer.delegation)}; all that a node needs\n"
        f"  {cold_file}: its own key; no program needs it: move it to a safe place offline"
    )
    Output(as_json=as_json).emit(
        "identity",
        {**_description(file, fresh.signer), "cold_file": str(cold_file)},
        human=human,
    )


@identity.command(epilog=examples("odsi identity show", "odsi identity show node-a.json --json"))
@click.argument("file", type=FILE, required=False)
@json_option
def show(file: Path | None, as_json: bool) -> None:
    """Check FILE and show whose identity it holds. Default: ~/.config/odsi/identity.json."""
    file = file or default_identity_path(os.environ)
    signer = load_signer(file, now_s=int(time.time()))
    human = (
        f"participant {participant_text(signer.participant)}\n"
        f"  {file}: hot key of epoch {signer.delegation.epoch}, valid until {expiry_text(signer.delegation)}"
    )
    Output(as_json=as_json).emit("identity", _description(file, signer), human=human)


def _description(file: Path, signer: Signer) -> dict[str, object]:
    delegation = signer.delegation
    return {
        "file": str(file),
        "participant": participant_text(signer.participant),
        "hot_key": delegation.hot_key.hex(),
        "epoch": delegation.epoch,
        "not_before_s": delegation.not_before_s,
        "not_after_s": delegation.not_after_s,
    }
