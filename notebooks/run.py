"""Runs notebooks from top to bottom and writes them back with their figures, so that they can be read without running.

    python notebooks/run.py                 # all of this folder
    python notebooks/run.py 03_recipe       # some

What differs from run to run is left out: times, progress, white space at the ends. Figures are PNG, small enough
for git. `sources` in the metadata is the digest of the code that the outputs came from; the tests compare it.
"""

import base64
import hashlib
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
WIDTH = 1080  # pixels of a figure, at most


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code cells, in their order."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def small_png(data: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, coalesce_streams=True, resources=place).execute()
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.output_type != "stream" or one.name == "stdout"]
        for output in cell.outputs:
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small_png(output.data["image/png"])
    notebook.metadata = {
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": {"name": "python"},
        "sources": digest(notebook),
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        print(name, flush=True)
        run(FOLDER / f"{Path(name).stem}.ipynb")
