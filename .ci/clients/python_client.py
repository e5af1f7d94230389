"""Runs through a token's life with Python's own gRPC, which knows tokend only by reflection.

No code is generated from the contract: what this client can call, any dynamic client can. It speaks
reflection v1alpha, as grpcio-reflection does. It exits with status 0 if every response was right.

Environment: TOKEND_ADDRESS (host:port, with or without http://), and the secret of a root token in
TOKEND_SECRET or in the file named by TOKEND_SECRET_FILE. Secrets are never printed.
"""

import os
import pathlib
import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "tokend.v1.TokenService"
TIMEOUT_SECONDS = 10
TTL_SECONDS = 600


def check(actual, wanted, what):
    """Ends the run unless the two are equal; `what` names the rule, without any secret."""
    if actual != wanted:
        sys.exit(f"python client: {what}: got {actual!r}, wanted {wanted!r}")


def check_that(condition, what):
    """Ends the run unless the condition holds; for values that must not be printed."""
    if not condition:
        sys.exit(f"python client: {what}: this does not hold")


def address():
    """Returns tokend's address, as host:port."""
    text = os.environ.get("TOKEND_ADDRESS", "127.0.0.1:50051")
    return text.removeprefix("http://").rstrip("/")


def root_secret():
    """Returns the caller's secret, from the environment or from a file."""
    if secret := os.environ.get("TOKEND_SECRET"):
        return secret
    if path := os.environ.get("TOKEND_SECRET_FILE"):
        return pathlib.Path(path).read_text(encoding="ascii").strip()
    sys.exit("python client: set TOKEND_SECRET or TOKEND_SECRET_FILE")


class TokenService:
    """Calls tokend's methods by name, with messages built from its reflection."""

    def __init__(self, channel):
        self._channel = channel
        database = ProtoReflectionDescriptorDatabase(channel)
        check_that(SERVICE in database.get_services(), f"reflection lists {SERVICE}")
        self._pool = descriptor_pool.DescriptorPool(database)
        self._methods = self._pool.FindServiceByName(SERVICE).methods_by_name

    def call(self, method_name, caller_secret, /, **fields):
        """Calls one method; `caller_secret` None sends no authorization."""
        method = self._methods[method_name]
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        answer = message_factory.GetMessageClass(method.output_type)
        invoke = self._channel.unary_unary(
            f"/{SERVICE}/{method_name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        metadata = [("authorization", f"Bearer {caller_secret}")] if caller_secret else []
        return invoke(request, metadata=metadata, timeout=TIMEOUT_SECONDS)

    def enum_name(self, enum, number):
        """Returns the name of an enum's value in the contract."""
        values = self._pool.FindEnumTypeByName(f"tokend.v1.{enum}").values_by_number
        return values[number].name


def check_health(channel):
    """Checks that the server and the service are both SERVING, without a credential."""
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health.Check(request, timeout=TIMEOUT_SECONDS)
        check(answer.status, health_pb2.HealthCheckResponse.SERVING, f"health of {name!r}")


def check_refused(service, secret, code, reason):
    """Checks that a call with this credential fails with this code and ErrorInfo reason."""
    try:
        service.call("ListTokens", secret)
    except grpc.RpcError as error:
        check(error.code(), code, f"code for {reason}")
        status = rpc_status.from_call(error)
        check_that(status is not None, f"{reason} carries details")
        kind = error_details_pb2.ErrorInfo
        infos = [kind.FromString(packed.value) for packed in status.details if packed.Is(kind.DESCRIPTOR)]
        named = [(info.domain, info.reason) for info in infos]
        check(named, [("tokend", reason)], "ErrorInfo")
    else:
        sys.exit(f"python client: {reason}: the call was answered")


def check_verdict(service, root, secret, wanted, scopes=()):
    """Checks that Verify returns this verdict on the secret, and its token."""
    answer = service.call("Verify", root, secret=secret, required_scopes=list(scopes))
    check(service.enum_name("Verdict", answer.verdict), wanted, "verdict")
    known = wanted not in ("VERDICT_MALFORMED", "VERDICT_NOT_FOUND")
    check(answer.HasField("token"), known, f"{wanted} names the token")
    check_that(answer.HasField("as_of_time"), f"{wanted} says as of when")
    return answer


def create(service, root):
    """Creates a token with an expiration and one scope."""
    created = service.call(
        "CreateToken",
        root,
        user_id="python",
        name="python client",
        ttl={"seconds": TTL_SECONDS},
        scopes=["reports:read"],
        labels={"from": "python"},
    )
    token = created.token
    check(service.enum_name("TokenState", token.state), "TOKEN_STATE_ACTIVE", "state when created")
    check(dict(token.labels), {"from": "python"}, "labels when created")
    lifetime = token.expire_time.ToMilliseconds() - token.create_time.ToMilliseconds()
    check(lifetime, TTL_SECONDS * 1000, "lifetime in milliseconds")
    check_that(abs(token.create_time.ToSeconds() - time.time()) < 60, "create_time is now")
    check_that(f"_{token.id}" in created.secret, "the secret holds the id")
    return created


def check_listed(service, root, created):
    """Checks that a list filtered by user has exactly that token, without its secret."""
    listed = service.call("ListTokens", root, user_id="python", page_size=1000)
    mine = [token for token in listed.tokens if token.id == created.token.id]
    check_that(mine == [created.token], "the list shows the token once, as created")
    check_that(created.secret not in str(listed), "the list shows no secret")


def main():
    root = root_secret()
    with grpc.insecure_channel(address()) as channel:
        check_health(channel)
        service = TokenService(channel)
        created = create(service, root)
        check_listed(service, root, created)

        valid = check_verdict(service, root, created.secret, "VERDICT_VALID", ["reports:read"])
        check(valid.token.user_id, "python", "user of the verdict")
        both = ["reports:read", "reports:write"]
        lacking = check_verdict(service, root, created.secret, "VERDICT_MISSING_SCOPE", both)
        check(list(lacking.missing_scopes), ["reports:write"], "missing scopes")
        check_verdict(service, root, created.secret + "x", "VERDICT_MALFORMED")

        unauthenticated = grpc.StatusCode.UNAUTHENTICATED
        check_refused(service, None, unauthenticated, "CREDENTIAL_MISSING")
        check_refused(service, created.secret, grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")

        revoked = service.call("RevokeToken", root, token_id=created.token.id, reason="over")
        state = service.enum_name("TokenState", revoked.token.state)
        check(state, "TOKEN_STATE_REVOKED", "state when revoked")
        check(revoked.token.revoke_reason, "over", "reason of the revocation")
        check_that(revoked.HasField("effective_time"), "the revocation says from when")
        check_verdict(service, root, created.secret, "VERDICT_REVOKED")
        check_refused(service, created.secret, unauthenticated, "CREDENTIAL_REVOKED")
    print("python client: all answers were right")


if __name__ == "__main__":
    main()
