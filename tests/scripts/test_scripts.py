"""Golden conversations: each script's log is what the endpoints do, and counts for its spec ids."""

from pathlib import Path

import pytest

from odsi_proto.testing.script import ScriptError, parse_script, run_script

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


def read(path: Path) -> tuple[str, ...]:
    """The spec ids of a script; none of one that can not be read, which its own test reports."""
    try:
        return parse_script(path.read_text(encoding="utf-8"), path.name).spec
    except ScriptError:
        return ()


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.spec(*read(path))) for path in SCRIPTS]
)
def test_the_log_of_a_script_is_as_written(path: Path, request: pytest.FixtureRequest) -> None:
    script = parse_script(path.read_text(encoding="utf-8"), path.name)
    ran = run_script(script).render()
    if request.config.getoption("--rewrite"):
        path.write_text(ran, encoding="utf-8")
    assert ran.splitlines() == path.read_text(encoding="utf-8").splitlines()
