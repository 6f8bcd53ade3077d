"""Whether a tag may become a release: it is `v` and the version of pyproject.toml and CITATION.cff, and the changelog
has a section for it.

    python .ci/release.py v0.1.0
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(tag: str, root: Path = ROOT) -> list[str]:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = re.search(r"(?m)^version: *\"?([^\s\"]+)", (root / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return [
        *([f"the tag is {tag}, pyproject.toml has version {version}"] if tag != f"v{version}" else []),
        *([f"CITATION.cff must have version {version}"] if cited is None or cited[1] != version else []),
        *([f"CHANGELOG.md must have a section [{version}]"] if f"\n## [{version}]" not in changelog else []),
    ]


if __name__ == "__main__":
    wrong = problems(sys.argv[1])
    print("\n".join(wrong) or f"{sys.argv[1]} can be released.")
    sys.exit(bool(wrong))
