"""Draw docs/performance/*.svg from what `adding.py --growth` and `divergence.py --growth` wrote.

python tests/benchmarks/plots.py noise.json divergence.json
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

FOLDER = Path(__file__).parents[2] / "docs" / "performance"
LABELS = {"length": "tokens, 256 features", "width": "features, 1,024 tokens"}
LABELS["words"] = "words, 256 tokens of 1,024 features"


def draw(file: Path) -> None:
    """Draw time and memory over every size of a file, with a line of slope 1 through the last point."""
    found = {key: values for key, values in json.loads(file.read_text()).items() if key in LABELS}
    figure, axes = pyplot.subplots(2, len(found), figsize=(4.5 * len(found), 6), squeeze=False)
    for column, (size, values) in enumerate(found.items()):
        sizes = [int(each) for each in values]
        for row, (unit, label, factor) in enumerate((("seconds", "ms", 1e3), ("bytes", "MiB", 2.0**-20))):
            measured, axis = [each[unit] * factor for each in values.values()], axes[row][column]
            axis.loglog(sizes, measured, "o-")
            axis.loglog(sizes, [measured[-1] * each / sizes[-1] for each in sizes], ":", color="gray")
            axis.set(xlabel=LABELS[size], ylabel=label)
    figure.tight_layout()
    FOLDER.mkdir(exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "neft-zoo"
    figure.savefig(FOLDER / f"{file.stem}.svg", metadata={"Date": None})


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        draw(Path(argument))
