"""Runs etcd, Patroni's nodes, HAProxy, two replicas and a load, and makes the leader fail. Called by `.ci/patroni`.

Arguments: the program, a directory to work in, how many nodes, the failures.
"""

import functools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid

import grpc
from python_client import TokenService

BINARY, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
GUIDE = pathlib.Path(__file__).parent.parent / "docs/operations.md"
PROGRAMS = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
running = []


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(name, *command, **settings):
    """Starts a program that ends with this one; its log is `name`.log."""
    with open(WORK / f"{name}.log", "ab") as log:
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **settings}))
    return running[-1]


def wait(what, found):
    deadline = time.monotonic() + 120
    while not (answer := found()):
        if time.monotonic() > deadline:
            sys.exit(f"patroni: this did not come: {what}")
        time.sleep(0.1)
    return answer


class Node:
    """A Patroni and its Postgres."""

    def __init__(self, number, etcd):
        self.name, self.home = f"node{number}", WORK / f"node{number}"
        self.address, self.rest = free_address(), free_address()
        self.home.mkdir()
        subprocess.run(["chown", "postgres:", self.home], check=True)
        dcs = {"ttl": 20, "loop_wait": 5, "retry_timeout": 5, "synchronous_mode": True}
        dcs["postgresql"] = {"use_pg_rewind": True, "parameters": {"max_connections": 200, "wal_log_hints": "on"}}
        postgres = {"listen": self.address, "connect_address": self.address, "data_dir": str(self.home / "data")}
        postgres["bin_dir"], postgres["parameters"] = str(PROGRAMS), {"unix_socket_directories": str(self.home)}
        postgres["pg_hba"] = [f"host {database} all 127.0.0.1/32 trust" for database in ("all", "replication")]
        roles = {"superuser": "postgres", "replication": "replicator", "rewind": "rewinder"}
        postgres["authentication"] = {kind: {"username": role, "password": role} for kind, role in roles.items()}
        config = {"scope": "tokend", "name": self.name, "etcd3": {"hosts": [etcd]}, "postgresql": postgres}
        config["restapi"] = {"listen": self.rest, "connect_address": self.rest}
        config["bootstrap"] = {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}]}
        (WORK / f"{self.name}.yml").write_text(json.dumps(config), encoding="ascii")
        self.start()

    def start(self):
        patroni = [WORK / "venv/bin/patroni", WORK / f"{self.name}.yml"]
        self.process = start(self.name, *AS_POSTGRES, *patroni, HOME=str(self.home))

    def ask(self, path, body=None):
        """Asks Patroni; returns `None` if it does not answer, or refuses."""
        try:
            with urllib.request.urlopen(f"http://{self.rest}{path}", body and json.dumps(body).encode(), timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def kill(self):
        """Ends all of its processes at once, as when its machine dies."""
        self.process.kill()
        postmaster = (self.home / "data/postmaster.pid").read_text(encoding="ascii").split("\n")[0]
        children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii")
        for pid in [postmaster, *children.split()]:
            os.kill(int(pid), signal.SIGKILL)


def roles(nodes):
    """Returns the roles of the nodes that run."""
    said = next(filter(None, (node.ask("/cluster") for node in nodes)), '{"members": []}')
    members = json.loads(said)["members"]
    return {member["name"]: member["role"] for member in members if member["state"] in ("running", "streaming")}


def leader(nodes):
    return next((node for node in nodes if roles(nodes).get(node.name) == "leader"), None)


def is_whole(nodes):
    found = roles(nodes)
    return len(found) == len(nodes) and {"leader", "sync_standby"} <= set(found.values())


def fail(nodes, failure):
    """Makes the leader fail; returns it once there is another."""
    failed = leader(nodes)
    if failure == "switchover":
        standby = next(name for name, role in roles(nodes).items() if role == "sync_standby")
        wait("a switchover", lambda: failed.ask("/switchover", {"leader": failed.name, "candidate": standby}))
    else:
        failed.kill()
    wait("another leader", lambda: leader(nodes) not in (None, failed))
    return failed


class Load:
    """Creates, revokes and verifies tokens on all replicas, and keeps what was acknowledged."""

    def __init__(self, services, secret):
        self.services, self.secret = services, secret
        self.created, self.asked, self.revoked, self.wrong = [], set(), {}, []
        self.changes, self.verdicts = [], []
        for work in [self.change, self.change, self.verify, self.verify] * len(services):
            threading.Thread(target=self.repeat, args=(work,), daemon=True).start()

    def repeat(self, work):
        while True:
            try:
                work(random.choice(self.services))
            except grpc.RpcError as error:
                if error.code() not in TRANSIENT:
                    self.wrong.append(f"{error.code()}: {error.details()}")
            time.sleep(0.02)

    def change(self, service):
        request = {"user_id": "load", "name": "load", "no_expiration": True, "request_id": str(uuid.uuid4())}
        made = service.call("CreateToken", self.secret, **request)
        self.changes.append(time.monotonic())
        self.created.append((made.token.id, made.secret))
        if random.random() < 0.5:
            self.asked.add(made.token.id)
            done = service.call("RevokeToken", self.secret, token_id=made.token.id)
            self.changes.append(time.monotonic())
            self.revoked[made.token.id] = done.effective_time.ToNanoseconds() / 1e9

    def verify(self, service):
        if self.created:
            token = random.choice(self.created)
            if not self.is_right(service, token):
                self.wrong.append(f"{token[0]}: a wrong verdict")

    def is_right(self, service, token, **fields):
        """Verifies a token; returns whether the verdict is right."""
        revoked = self.revoked.get(token[0], float("inf")) < time.time()
        answer = service.call("Verify", self.secret, secret=token[1], **fields)
        self.verdicts.append(time.monotonic())
        right = {"VERDICT_REVOKED"} if revoked else {"VERDICT_VALID"}
        if token[0] in self.asked:
            right.add("VERDICT_REVOKED")
        return service.enum_name("Verdict", answer.verdict) in right

    def lost(self):
        """Counts the tokens whose acknowledged state is not in the database."""
        return [wait("a verdict", lambda: self.full(token)) for token in list(self.created)].count("wrong")

    def full(self, token):
        try:
            return "right" if self.is_right(self.services[0], token, consistency="CONSISTENCY_FULL") else "wrong"
        except grpc.RpcError:
            return None


def longest_gap(moments, began):
    seen = [began, *(moment for moment in list(moments) if moment > began)]
    return max(after - before for before, after in zip(seen, seen[1:]))


def main():
    (etcd, peers, database), count = (free_address() for _ in range(3)), int(sys.argv[3])
    urls = ["--listen-client-urls", f"http://{etcd}", "--advertise-client-urls", f"http://{etcd}"]
    start("etcd", "etcd", "--data-dir", WORK / "etcd", *urls, "--listen-peer-urls", f"http://{peers}")
    nodes = [Node(number, etcd) for number in range(1, count + 1)]
    wait("a whole cluster", lambda: is_whole(nodes))
    host, port = leader(nodes).address.split(":")
    for statement in ("CREATE ROLE haproxy_check LOGIN", "CREATE DATABASE tokend"):
        subprocess.run([PROGRAMS / "psql", "-qh", host, "-p", port, "-U", "postgres", "-c", statement], check=True)
    shown = re.search(r"<!-- file: haproxy.cfg -->\n```haproxy\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]
    shown = re.sub(r"(?m)^ *server .*\n", "", shown).replace("127.0.0.1:6432", database)
    servers = "".join(f"    server {node.name} {node.address}\n" for node in nodes)
    (WORK / "haproxy.cfg").write_text(shown + servers, encoding="utf-8")
    start("haproxy", "haproxy", "-db", "-f", WORK / "haproxy.cfg")

    settings = {"DATABASE_URL": f"postgres://postgres@{database}/tokend?sslmode=disable", "TOKEND_ARGON2_MEMORY_KIB": "64"}
    keyring, environment = ["--keyring", WORK / "keyring"], {**os.environ, **settings}
    subprocess.run([BINARY, "keygen", "--output", WORK / "keyring"], check=True)
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True)
    wait("the primary behind HAProxy", lambda: run([BINARY, "migrate", *keyring], check=False).returncode == 0)
    secret = run([BINARY, "bootstrap", *keyring], check=True)
    services = []
    for address in (free_address(), free_address()):
        start("tokend", BINARY, "serve", "--listen", address, *keyring, **settings)
        channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(channel).result(timeout=60)
        services.append(TokenService(channel))
    load, lost = Load(services, secret.stdout.strip()), 0
    for failure in sys.argv[4:]:
        wait("a whole cluster under load", lambda: is_whole(nodes) and len(load.revoked) > 50)
        began = time.monotonic()
        failed = fail(nodes, failure)
        for moments, before in ((load.changes, len(load.changes)), (load.verdicts, len(load.verdicts))):
            wait("that the load continues", lambda: len(moments) > before + 50)
        missing, lost = [longest_gap(moments, began) for moments in (load.changes, load.verdicts)], load.lost()
        told = f"{len(load.created)} creations and {len(load.revoked)} revocations acknowledged, {lost} lost"
        print(f"{failure}: no change for {missing[0]:.1f} s, no verdict for {missing[1]:.1f} s; {told}; {len(load.wrong)} wrong", flush=True)
        if failure == "kill":
            failed.start()
    print("".join(f"{wrong}\n" for wrong in load.wrong[:10]), end="")
    return 1 if load.wrong or lost else 0


if __name__ == "__main__":
    try:
        status = main()
    finally:
        # Patroni ends its Postgres.
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
    sys.exit(status)
