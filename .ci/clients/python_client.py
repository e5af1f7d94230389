"""Walks a token through its life with Python's own gRPC, knowing tokend by reflection alone.

No code is generated from the contract: what this client can call, any dynamic client can. It speaks
reflection v1alpha, as grpcio-reflection does. It ends with status 0 when every answer was right.

Environment: TOKEND_ADDRESS (host:port, with or without http://), and the secret of a root token in
TOKEND_SECRET or in the file that TOKEND_SECRET_FILE names. Secrets are never printed.
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
    """Reads where tokend listens, as host:port."""
    text = os.environ.get("TOKEND_ADDRESS", "127.0.0.1:50051")
    return text.removeprefix("http://").rstrip("/")


def root_secret():
    """Reads the caller's secret from the environment or from a file."""
    if secret := os.environ.get("TOKEND_SECRET"):
        return secret
    if path := os.environ.get("TOKEND_SECRET_FILE"):
        return pathlib.Path(path).read_text(encoding="ascii").strip()
    sys.exit("python client: set TOKEND_SECRET or TOKEND_SECRET_FILE")


class TokenService:
    """Calls tokend's methods by name, with messages built from what reflection tells."""

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
        """Names an enum's value, as the contract spells it."""
        values = self._pool.FindEnumTypeByName(f"tokend.v1.{enum}").values_by_number
        return values[number].name


def check_health(channel):
    """The whole server and the service both say SERVING, to anyone."""
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health.Check(request, timeout=TIMEOUT_SECONDS)
        check(answer.status, health_pb2.HealthCheckResponse.SERVING, f"health of {name!r}")


def check_refused(service, secret, code, reason):
    """A call with this credential fails with this code and ErrorInfo reason."""
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
    """Verify says this of the secret, and names its token."""
    answer = service.call("Verify", root, secret=secret, required_scopes=list(scopes))
    check(service.enum_name("Verdict", answer.verdict), wanted, "verdict")
    known = wanted not in ("VERDICT_MALFORMED", "VERDICT_NOT_FOUND")
    check(answer.HasField("token"), known, f"{wanted} names the token")
    check_that(answer.HasField("as_of_time"), f"{wanted} says as of when")
    return answer


def create(service, root):
    """Creates a token that lives for a while and may do one thing."""
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
    """The list shows exactly that token to a user's filter, without its secret."""
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
