"""Pictures of MLflow's own page with the runs of an outputs folder: what docs/mlflow.png shows.

    python .ci/mlflow_page.py outputs docs/mlflow.png

Starts `mlflow ui` on the folder's store, opens the view of an experiment in a headless Chromium, and ends both. Needs
chromium, and some runs: those of `maquette demo`, for instance.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from maquette.tracking.config import TrackingConfig
from maquette.tracking.search import mlflow_page


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def wait_for(address: str, seconds: float = 300.0) -> None:
    """Returns when the server answers. Raises `TimeoutError` where it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise TimeoutError(f"{address} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, help="folder with mlflow.db")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--experiment", default=TrackingConfig.experiment)
    parser.add_argument("--size", default="1500,1000", help="of the window")
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        parser.error("there is no chromium")
    page = mlflow_page(arguments.outputs, TrackingConfig(experiment=arguments.experiment)).partition("5000/")[2]
    port = free_port()
    store = f"sqlite:///{arguments.outputs.absolute() / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--backend-store-uri", store], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--window-size={arguments.size}", "--virtual-time-budget=30000",
                f"--screenshot={arguments.picture}", f"http://127.0.0.1:{port}/{page}",
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=900,
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
