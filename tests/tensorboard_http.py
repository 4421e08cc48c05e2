"""A client of TensorBoard's real HTTP endpoints, in this process or over the network."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


class Dashboard:
    """A client; `fetch` takes a path with its query, and a body for a POST."""

    def __init__(self, fetch: Callable[[str, bytes | None], bytes]) -> None:
        self._fetch = fetch

    @classmethod
    def at(cls, url: str) -> "Dashboard":
        """For a server that is running, such as `batchlab dashboard`'s."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def fetch(path: str, body: bytes | None) -> bytes:
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers)
            with direct.open(request, timeout=30) as answer:
                return bytes(answer.read())

        return cls(fetch)

    @classmethod
    def of(cls, logdir: Path) -> "Dashboard":
        """For the web application in this process, with everything below `logdir` loaded."""
        from tensorboard import program
        from tensorboard.backend import application
        from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
        from werkzeug.test import Client

        server = program.TensorBoard()
        once = ["--reload_interval", "0", "--reload_task", "blocking"]
        server.configure(["", "--logdir", str(logdir), "--load_fast", "false", *once])
        ingester = LocalDataIngester(server.flags)
        ingester.start()
        client = Client(
            application.TensorBoardWSGIApp(
                server.flags,
                server.plugin_loaders,
                ingester.data_provider,
                server.assets_zip_provider,
                ingester.deprecated_multiplexer,
            )
        )

        def fetch(path: str, body: bytes | None) -> bytes:
            answer = client.get(path) if body is None else client.post(path, data=body, content_type="application/json")
            assert answer.status_code == 200, f"{path}: {answer.status}"
            return bytes(answer.data)

        return cls(fetch)

    def get(self, path: str, **query: str) -> Any:
        return json.loads(self._fetch(f"{path}?{urlencode(query)}" if query else path, None))

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self._fetch(path, json.dumps(body).encode()))

    def runs(self) -> list[str]:
        return list(self.get("/data/runs"))

    def tags(self) -> dict[str, list[str]]:
        """Scalar tags by run."""
        return {run: sorted(tags) for run, tags in self.get("/data/plugin/scalars/tags").items()}

    def scalars(self, run: str, tag: str) -> list[tuple[float, int, float]]:
        """Wall time, step and value of each point that is drawn."""
        points = self.get("/data/plugin/scalars/scalars", run=run, tag=tag)
        return [(wall_time, step, float(value)) for wall_time, step, value in points]

    def experiment(self) -> dict[str, Any]:
        """The columns of the HPARAMS table: `hparamInfos` and `metricInfos`."""
        return dict(self.post("/data/plugin/hparams/experiment", {"experimentName": ""}))

    def session_groups(self, columns: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The rows of the HPARAMS table, seeds averaged, with the page's default columns or with `columns`."""
        if columns is None:
            known = [info["name"] for info in self.experiment().get("hparamInfos", [])]
            columns = [{"hparam": name, "includeInResult": True} for name in known]
        body = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
            "colParams": columns,
            "startIndex": 0,
            "sliceSize": 1000,
        }
        return list(self.post("/data/plugin/hparams/session_groups", body).get("sessionGroups", []))

    def charts(self) -> dict[str, dict[str, list[str]]]:
        """The CUSTOM SCALARS page: category -> title of a chart -> its regular expressions of tags."""
        page = self.get("/data/plugin/custom_scalars/layout")
        return {
            category["title"]: {chart["title"]: _tags(chart) for chart in category["chart"]}
            for category in page.get("category", [])
        }

    def drawn(self, run: str, regex: str) -> list[str]:
        """The tags that a custom chart draws for a run."""
        answer = self.get("/data/plugin/custom_scalars/scalars", run=run, tag=regex)
        assert answer["regex_valid"], regex
        return sorted(tag for tag, points in answer["tag_to_events"].items() if points)


def _tags(chart: dict[str, Any]) -> list[str]:
    if "margin" in chart:
        (series,) = chart["margin"]["series"]
        return [series["value"], series["lower"], series["upper"]]
    return list(chart["multiline"]["tag"])


@contextmanager
def tensorboard_process(logdir: Path) -> Iterator[Dashboard]:
    """`tensorboard --logdir` in a separate process, with its defaults and so with its fast loader."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--reload_interval", "1"]
    command += ["--host", "127.0.0.1", "--port", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield Dashboard.at(found[0])
                    return
            raise AssertionError(f"TensorBoard did not start:\n{said}")
        finally:
            process.terminate()


def eventually(ask: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    """Repeats a request until the response is `enough`, because a server reads its files at any time."""
    deadline = time.monotonic() + seconds
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"not enough after {seconds} seconds: {answer}"
        time.sleep(0.1)
    return answer


def number_of(group: dict[str, Any], tag: str) -> float:
    """A metric of a row of the HPARAMS table."""
    values = {entry["name"]["tag"]: entry["value"] for entry in group["metricValues"]}
    return float(values[tag])
