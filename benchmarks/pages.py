"""Write the comparison pages again from the figures beside them, when their look has changed.

python benchmarks/pages.py
"""

from __future__ import annotations

import json
from pathlib import Path

from sharpv.view.comparing import comparison_page

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def pages() -> dict[Path, str]:
    """Every page that there is, as it should be; its title is that of the Markdown page."""
    made = {}
    for path in sorted(RESULTS.glob("*.html")):
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        title = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        made[path] = comparison_page(facts, title)
    return made


if __name__ == "__main__":
    for path, page in pages().items():
        path.write_text(page, encoding="utf-8")
        print(path)
