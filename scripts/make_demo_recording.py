"""Make `demo/recordings/city_drive.mcap`, the recording that the demo ingests.

    python scripts/make_demo_recording.py [OUTPUT.mcap]

The drive is simulated (see `demo/drive`): 52 s from 2026-03-14T09:26:53Z. The car sets off, takes a bend to the left
and one to the right, stands at a stop line from second 23.2 to 25.6, speeds up, swerves hard around a cart at second 36
(lateral acceleration +6.5 and then -6.3 m/s^2), returns to its lane, and comes to rest after a last bend.

All noise is seeded: run again, the script writes the same bytes. A test compares them with the file in the repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.drive.recording import DEFAULT_PATH, write  # noqa: E402


def main(arguments: list[str]) -> int:
    """Write the recording to the path given, or to its place in the repository."""
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[0]) if arguments else ROOT / DEFAULT_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
