"""Compares the metrics in the alerts, the dashboard and the operations guide with those of a server.

    metric_names.py REPOSITORY METRICS

METRICS is the text of /metrics. Fails when a query uses a metric, a label or a label's value that
the text does not have, when a metric is missing in the guide's table, or is in no alert and no
panel, or when an alert has no summary, no severity, no test, or a broken runbook link. Prints the
dashboard's queries as a rule file, for promtool to parse. Called by .ci/metrics.
"""

import collections
import json
import pathlib
import re
import sys

import yaml

SAMPLE = re.compile(r"^([a-z0-9_]+)(?:\{(.*)\})? \S+$")
PAIR = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SELECTOR = re.compile(r"\b((?:tokend|process)_[a-z0-9_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
# The labels that Prometheus itself adds to every sample.
ADDED = {"job", "instance"}
SEVERITIES = {"critical", "warning", "info"}
# The address of the published guide in the alerts; its owner replaces it.
GUIDE = "https://docs.example/tokend/operations.md"
# Metrics that no alert and no panel shows, and why.
UNWATCHED = {
    "process_threads": "fixed by the number of cores, but for a moment",
    "process_virtual_memory_bytes": "address space; process_resident_memory_bytes is what is taken",
}


def served(text):
    """Returns the labels of every sample, each with all its values, by the sample's name."""
    samples = collections.defaultdict(lambda: collections.defaultdict(set))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels = SAMPLE.match(line).groups()
            samples[name]["__name__"].add(name)
            for label, value in PAIR.findall(labels or ""):
                samples[name][label].add(value)
    return samples


def queries_of(alerts, dashboard):
    """Yields the name of each alert, rule, panel or variable, with its query."""
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def wrong_selectors(query, samples):
    """Yields the metrics, labels and values in a query that no server has."""
    for name, matchers in SELECTOR.findall(query):
        if name not in samples:
            yield f"no metric {name}"
            continue
        for label, operator, wanted in MATCHER.findall(matchers):
            if label in ADDED:
                continue
            values = samples[name].get(label)
            if not values:
                yield f"{name} has no label {label}"
            for value in wanted.split("|") if "~" in operator else [wanted]:
                if values and value not in values:
                    yield f'{name} has no {label}="{value}"'
    labels = set().union(*(samples[name] for name, _ in SELECTOR.findall(query) if name in samples))
    for grouped in GROUPED.findall(query):
        for label in filter(None, (label.strip() for label in grouped.split(","))):
            if label not in labels | ADDED:
                yield f"no metric of this query has the label {label}"


def wrong_alerts(alerts, tests, guide):
    """Yields what an alert lacks besides its query."""
    anchors = {heading.strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", guide, re.M)}
    fired = {
        case["alertname"]
        for test in tests["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    for group in alerts["groups"]:
        for rule in group["rules"]:
            if name := rule.get("alert"):
                address, _, anchor = rule["annotations"].get("runbook_url", "").partition("#")
                if address != GUIDE or anchor not in anchors:
                    yield f"{name}: its runbook leads nowhere"
                if not rule["annotations"].get("summary"):
                    yield f"{name}: no summary"
                if rule["labels"].get("severity") not in SEVERITIES:
                    yield f"{name}: no severity"
                if name not in fired:
                    yield f"{name}: no test makes it fire"


def unwatched(text, queries):
    """Yields the server's metrics that no alert and no panel uses, and wrong entries of UNWATCHED."""
    shown = {name for _, query in queries for name, _ in SELECTOR.findall(query)}
    shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    for name in sorted(names - shown - set(UNWATCHED)):
        yield f"{name} is in no alert and no panel: show it, or say in UNWATCHED why not"
    for name in sorted(set(UNWATCHED) & shown | set(UNWATCHED) - names):
        yield f"{name} is in UNWATCHED, and is shown or not served"


def undocumented(text, guide):
    """Yields metrics of the server that the guide does not name."""
    for name in re.findall(r"^# TYPE (\S+) ", text, re.M):
        if f"`{name}`" not in guide:
            yield f"{name} is not in docs/operations.md"
    for name in set(re.findall(r"`(tokend_[a-z0-9_]+)`", guide)):
        if f"# TYPE {name} " not in text:
            yield f"docs/operations.md names {name}, which no server has"


def as_rules(dashboard):
    """Returns the dashboard's queries as recording rules, with its variables filled in."""
    rules = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "5m")
            query = query.replace("$job", "tokend").replace("$instance", ".*")
            rules.append({"record": f"dashboard:panel{panel['id']}:{target['refId'].lower()}", "expr": query})
    return {"groups": [{"name": "dashboard", "rules": rules}]}


def main(root, metrics):
    """Prints the dashboard's rules, or exits with the list of all mistakes."""
    root, text = pathlib.Path(root), pathlib.Path(metrics).read_text(encoding="utf-8")
    alerts = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((root / "deploy/prometheus/alerts_test.yml").read_text(encoding="utf-8"))
    dashboard = json.loads((root / "deploy/grafana/tokend.json").read_text(encoding="utf-8"))
    guide = (root / "docs/operations.md").read_text(encoding="utf-8")
    samples = served(text)
    queries = list(queries_of(alerts, dashboard))
    wrong = [
        f"{where}: {what}"
        for where, query in queries
        for what in wrong_selectors(query, samples)
    ]
    wrong += [*wrong_alerts(alerts, tests, guide), *undocumented(text, guide), *unwatched(text, queries)]
    if wrong:
        sys.exit("\n".join(f"metrics: {line}" for line in wrong))
    print(yaml.safe_dump(as_rules(dashboard)))


main(*sys.argv[1:])
