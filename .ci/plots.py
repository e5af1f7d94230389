"""Puts a server under load, then draws the results of the dashboard's queries.

    plots.py REPOSITORY PROMETHEUS POSTMASTER

Called by .ci/plots, which has started the server (TOKEND_ADDRESS, TOKEND_SECRET_FILE) and a
Prometheus that scrapes it every second. POSTMASTER is the process of its Postgres, to be frozen.
"""

import json
import os
import pathlib
import random
import signal
import sys
import threading
import time
import urllib.parse
import urllib.request

import grpc
import matplotlib
from python_client import TokenService, address, root_secret

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

SECONDS = 180
TOKENS = 300
THREADS = 4
VERIFIES_A_SECOND = 800
# The times of token creations and revocations, and of the frozen Postgres.
CHURN = (40, 80)
FREEZE = (110, 122)
PANELS = [
    "Verdicts",
    "Verify's latency",
    "Calls that failed, by code",
    "Lookups",
    "How old answers may be",
    "Calls by RPC",
]
UNITS = {"s": "seconds", "reqps": "a second", "short": "a second"}


def quietly(service, method, caller, **fields):
    """Calls a method; failures are expected."""
    try:
        return service.call(method, caller, **fields)
    except grpc.RpcError:
        return None


def verify(service, root, secrets, end):
    """Verifies known secrets at a steady pace until `end`."""
    pause, due = THREADS / VERIFIES_A_SECOND, time.monotonic()
    while time.monotonic() < end:
        quietly(service, "Verify", root, secret=random.choice(secrets))
        due = max(due + pause, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


def create(service, root):
    """Creates a token."""
    return quietly(
        service, "CreateToken", root, user_id="plots", name="plots", ttl={"seconds": 3600}, scopes=["reports:read"]
    )


def churn(service, root, end):
    """Creates, uses, guesses, lists and revokes until `end`."""
    while time.monotonic() < end:
        if made := create(service, root):
            quietly(service, "Verify", root, secret=made.secret)
            quietly(service, "Verify", root, secret=made.secret[:-1])
            quietly(service, "Verify", root, secret=made.secret, required_scopes=["reports:write"])
            quietly(service, "RevokeToken", root, token_id=made.token.id, reason="plots")
            quietly(service, "Verify", root, secret=made.secret)
            quietly(service, "ListTokens", root, user_id="plots")
            quietly(service, "ListTokens", made.secret)
        time.sleep(0.1)


def family(process):
    """Returns the process and its current children."""
    children = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [process, *map(int, children.split())]


def load(postmaster):
    """Runs the whole load; returns its start time, by the wall clock."""
    root = root_secret()
    channels = [grpc.insecure_channel(address(), [("grpc.use_local_subchannel_pool", 1)]) for _ in range(THREADS + 1)]
    services = [TokenService(channel) for channel in channels]
    secrets = [create(services[0], root).secret for _ in range(TOKENS)]
    began, wall = time.monotonic(), time.time()
    threads = [
        threading.Thread(target=verify, args=(service, root, secrets, began + SECONDS)) for service in services[1:]
    ]
    for thread in threads:
        thread.start()
    time.sleep(CHURN[0])
    churn(services[0], root, began + CHURN[1])
    time.sleep(began + FREEZE[0] - time.monotonic())
    frozen = family(postmaster)
    for process in frozen:
        os.kill(process, signal.SIGSTOP)
    time.sleep(FREEZE[1] - FREEZE[0])
    for process in frozen:
        os.kill(process, signal.SIGCONT)
    for thread in threads:
        thread.join()
    return wall


def answers(prometheus, query, start):
    """Returns the series of a query in Prometheus, over the whole load."""
    for variable, value in {"$__rate_interval": "5s", "$job": "tokend", "$instance": ".*"}.items():
        query = query.replace(variable, value)
    asked = urllib.parse.urlencode({"query": query, "start": start, "end": start + SECONDS, "step": 1})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{asked}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def label(target, metric):
    """Returns the name of a series as in Grafana, with its one label filled in."""
    text = target["legendFormat"]
    for name, value in metric.items():
        text = text.replace("{{%s}}" % name, value)
    return "replica" if text.startswith("127.") else text


def draw(panel, axes, prometheus, start):
    """Draws one panel of the dashboard."""
    for target in panel["targets"]:
        for series in answers(prometheus, target["expr"], start):
            moments = [float(moment) - start for moment, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            if any(value > 0 for value in values):
                axes.plot(moments, values, linewidth=1, label=label(target, series["metric"]))
    axes.set_title(panel["title"], fontsize=9)
    axes.set_ylabel(UNITS[panel["fieldConfig"]["defaults"]["unit"]], fontsize=7)
    if panel["title"] in ("Verify's latency", "How old answers may be"):
        axes.set_yscale("log")
    axes.set_xlim(0, SECONDS)
    axes.axvspan(*CHURN, color="0.95")
    axes.axvspan(*FREEZE, color="mistyrose")
    axes.tick_params(labelsize=7)
    axes.grid(linewidth=0.2)
    axes.legend(fontsize=6, loc="best", frameon=False)


def main(repository, prometheus, postmaster):
    """Runs the load, queries Prometheus and draws the panels."""
    repository = pathlib.Path(repository)
    dashboard = json.loads((repository / "deploy/grafana/tokend.json").read_text(encoding="utf-8"))
    panels = {panel["title"]: panel for panel in dashboard["panels"]}
    start = load(int(postmaster))
    time.sleep(3)
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tokend", "font.family": "sans-serif"})
    figure, grid = plt.subplots(3, 2, figsize=(10, 8), sharex=True, layout="constrained")
    for title, axes in zip(PANELS, grid.flat, strict=True):
        draw(panels[title], axes, prometheus, start)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=7)
    # The check's own files are private; this one is not.
    os.umask(0o022)
    images = repository / "docs/img"
    images.mkdir(exist_ok=True)
    figure.savefig(images / "dashboard.svg", metadata={"Date": None, "Creator": None})


main(*sys.argv[1:])
