"""`python -m tests.faults [fuzz ...] [--count N] [--seed N]`: prints what was tried, survived and lost."""

import argparse
import base64
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.formats import FORMATS
from tests.faults.fuzz import FINDINGS, attack

CASES = Path(__file__).parent / "cases"


def run_fuzz(count: int, seed: int, only: list[str], keep: bool) -> int:
    total: Counter[str] = Counter()
    print(f"{'format':24} {'tried':>6} {'refused':>8} {'same':>6} {'other':>6}  findings")
    for format in FORMATS:
        if only and not any(word in format.name for word in only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = attack(format, Path(folder), seed, count)
        total += result.outcomes
        findings = {kind: result.outcomes[kind] for kind in FINDINGS if result.outcomes[kind]}
        row = (sum(result.outcomes.values()), *(result.outcomes[kind] for kind in ("refused", "same", "other")))
        print(f"{format.name:24} {row[0]:6} {row[1]:8} {row[2]:6} {row[3]:6}  {findings or ''}", flush=True)
        seen: set[str] = set()
        for kind, detail, damaged in result.findings:
            if (short := f"{kind} {detail[:60]}") in seen:
                continue
            seen.add(short)
            print(f"    {kind}: {detail[:160]!r}", flush=True)
            if keep:
                name = (
                    f"{format.name.replace(' ', '_').replace(chr(39), '')}-{len(list(CASES.glob('*.json'))):03d}.json"
                )
                CASES.mkdir(exist_ok=True)
                case = {"format": format.name, "was": short, "content": base64.b64encode(damaged).decode()}
                (CASES / name).write_text(json.dumps(case, indent=1) + "\n")
    print(f"{sum(total.values())} damaged files: {dict(total)}")
    return sum(total[kind] for kind in FINDINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="formats whose names contain one of these")
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep what is found in cases/")
    arguments = parser.parse_args()
    sys.exit(1 if run_fuzz(arguments.count, arguments.seed, arguments.only, arguments.keep) else 0)


if __name__ == "__main__":
    main()
