"""Takes the commands out of a page and compares what they printed with what the page shows.

    tour.py script PAGE            prints the commands of the page as one shell script
    tour.py compare PAGE OUTPUT    compares OUTPUT, what that script printed

The commands are between `<!-- tour:begin -->` and `<!-- tour:end -->`: ```sh blocks are
commands, all of one shell; a ```json or ```text block shows what the ```sh block before it prints.
Ids, secrets and times differ each time: they compare by their form, and ids in JSON also by where
they appear again. In text, how wide the columns are does not count.
"""

import json
import re
import sys

BEGIN, END = "<!-- tour:begin -->", "<!-- tour:end -->"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATOR = "== tour, block"

# What docs/tour.md has to show.
METHODS = ("CreateToken", "ListTokens", "Verify", "RotateToken", "RevokeToken")

# A page may cut its secret short, so that no scanner takes it for a leak.
SECRET = re.compile(r"^tokd_([0-9A-Za-z]{71}|[0-9A-Za-z]*\.\.\.)$")
ID = re.compile(r"^[0-9A-Za-z]{22}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")

# The same forms within a text.
WORDS = [
    (re.compile(r"\btokd_([0-9A-Za-z]{71}\b|[0-9A-Za-z]*\.\.\.)"), "<secret>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b[0-9A-Za-z]{22}\b"), "<id>"),
]


def tour(page):
    """Reads the tour as a list of [commands, language of the output, shown output or None]."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"tour: {page} must have one {BEGIN} and one {END}")
    text = text.split(BEGIN)[1].split(END)[0]
    steps = []
    for language, block in FENCE.findall(text):
        if language == "sh":
            steps.append([block, None, None])
        elif language in ("json", "text"):
            if not steps or steps[-1][2] is not None:
                sys.exit(f"tour: a {language} block must follow the sh block that prints it")
            steps[-1][1:] = [language, block]
    for method in METHODS if page.endswith("/tour.md") else ():
        if not any(f"TokenService/{method}" in commands for commands, _, _ in steps):
            sys.exit(f"tour: {page} does not call {method}")
    if not steps:
        sys.exit(f"tour: {page} has no commands")
    return steps


def script(steps):
    """Prints the commands as one script, which ends at the first failure."""
    print("set -euo pipefail")
    for number, (commands, _, _) in enumerate(steps):
        print(f"printf '\\n%s %s\\n' '{SEPARATOR}' {number}")
        print(commands)


def documents(text):
    """Parses consecutive JSON values."""
    decoder, values, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


def masked(value, ids):
    """Replaces what differs between runs; an id by the number of its first appearance."""
    if isinstance(value, dict):
        return {key: masked(inner, ids) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, ids) for inner in value]
    if isinstance(value, str):
        if SECRET.match(value):
            return "<secret>"
        if ID.match(value):
            return f"<id {ids.setdefault(value, len(ids))}>"
        if TIME.match(value):
            return "<time>"
    return value


def masked_text(text):
    """Replaces what differs between runs in a text, line by line."""
    for form, name in WORDS:
        text = form.sub(name, text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def compare(steps, output):
    """Ends with a message at the first block that printed something else than the page shows."""
    parts = re.split(rf"^{SEPARATOR} \d+\n", output, flags=re.MULTILINE)[1:]
    if len(parts) != len(steps):
        sys.exit(f"tour: {len(parts)} of {len(steps)} blocks ran")
    shown_ids, printed_ids, verdicts = {}, {}, []
    for number, ((_, language, shown), printed) in enumerate(zip(steps, parts)):
        if language is None:
            continue
        if language == "text":
            wanted, actual = masked_text(shown), masked_text(printed)
        else:
            answers = documents(printed)
            wanted, actual = masked(documents(shown), shown_ids), masked(answers, printed_ids)
            verdicts += [answer["verdict"] for answer in answers if "verdict" in answer]
        if actual != wanted:
            sys.exit(
                f"tour: block {number} printed\n{json.dumps(actual, indent=2)}\n"
                f"but the page shows\n{json.dumps(wanted, indent=2)}"
            )
    if verdicts and (verdicts[:1] != ["VERDICT_VALID"] or verdicts[-1:] != ["VERDICT_REVOKED"]):
        sys.exit(f"tour: must go from VERDICT_VALID to VERDICT_REVOKED, went {verdicts}")
    print(f"tour: {len(steps)} blocks printed what the page shows", *verdicts)


def main():
    match sys.argv[1:]:
        case ["script", page]:
            script(tour(page))
        case ["compare", page, output]:
            with open(output, encoding="utf-8") as file:
                compare(tour(page), file.read())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
