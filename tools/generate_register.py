"""From ``specs/register.toml`` and the documents' citations: the register table of specs/00."""

import tomllib
from pathlib import Path

from spec_markers import SPECS, between_markers, main, table
from spec_requirements import load_requirements

DOCUMENT = SPECS / "00-overview.md"
REGISTER = SPECS / "register.toml"


def outputs() -> dict[Path, str]:
    """The overview with its table; raises ``SystemExit`` for a citation of an unknown line."""
    lines = tomllib.loads(REGISTER.read_text(encoding="utf-8"))["line"]
    cited: dict[str, set[str]] = {line["id"]: set() for line in lines}
    for requirement in load_requirements():
        for cite in requirement.cites:
            if cite not in cited:
                raise SystemExit(f"{requirement.id} cites {cite}, which is not in {REGISTER.name}")
            cited[cite].add(requirement.document)
    rows = []
    for line in lines:
        still_open = line.get("open", "")
        if not cited[line["id"]] and not still_open:
            raise SystemExit(f"{line['id']} is cited nowhere and not open")
        where = ", ".join(sorted(cited[line["id"]])) or "—"
        rows.append((line["id"], line["subject"], where, still_open or "—"))
    block = table(("id", "subject", "specified in", "open"), rows)
    return {DOCUMENT: between_markers(DOCUMENT, {"register": block})}


if __name__ == "__main__":
    main(__doc__, outputs)
