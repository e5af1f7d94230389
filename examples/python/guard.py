"""Lets into a gRPC service who tokend says may come in, and nobody else: what is not known, or not listed, is
refused."""

import logging
import urllib.parse

import grpc

from tokend.v1 import token_service_pb2 as tokend

# How long tokend may take, in seconds: its own answers come from memory.
TIMEOUT_SECONDS = 2

LIMITED = (tokend.VERDICT_RATE_LIMITED, tokend.VERDICT_CREDITS_EXHAUSTED)
DENIED = (tokend.VERDICT_MISSING_SCOPE, tokend.VERDICT_IP_NOT_ALLOWED)


class Guard(grpc.ServerInterceptor):
    """Asks tokend on every call.

    `scopes` are those that each method needs, by its full name; methods that are not there are closed. A handler
    finds whom it was called for as `context.token`.
    """

    def __init__(self, tokend_stub, scopes):
        self._tokend = tokend_stub
        self._scopes = scopes

    def intercept_service(self, continuation, handler_call_details):
        method = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        kinds = {
            "unary_unary": grpc.unary_unary_rpc_method_handler,
            "unary_stream": grpc.unary_stream_rpc_method_handler,
            "stream_unary": grpc.stream_unary_rpc_method_handler,
            "stream_stream": grpc.stream_stream_rpc_method_handler,
        }
        kind = next(kind for kind in kinds if getattr(handler, kind) is not None)
        behaviour = getattr(handler, kind)

        def guarded(request, context):
            return behaviour(request, Admitted(context, self._admit(method, context)))

        return kinds[kind](guarded, handler.request_deserializer, handler.response_serializer)

    def _admit(self, method, context):
        """Returns the token that a call is let in by, or ends the call."""
        scopes = self._scopes.get(method)
        if scopes is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "this method is closed")
        secret = bearer(context.invocation_metadata())
        if secret is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "one bearer token is needed")
        request = tokend.VerifyRequest(secret=secret, required_scopes=scopes, client_ip=client_ip(context.peer()))
        try:
            answer = self._tokend.Verify(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            # Ours to mend, not the caller's: it must not take its token for a bad one.
            logging.error("tokend: %s: %s", error.code(), error.details())
            context.abort(grpc.StatusCode.UNAVAILABLE, "the token cannot be verified now")
        if answer.verdict == tokend.VERDICT_VALID:
            return answer.token
        if answer.verdict in DENIED:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token does not allow this")
        if answer.verdict in LIMITED:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "a limit of the token is used up")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not accepted")


class Admitted:
    """A call's context, with the token that it was let in by."""

    def __init__(self, context, token):
        self._context = context
        self.token = token

    def __getattr__(self, name):
        return getattr(self._context, name)


def bearer(metadata):
    """Finds the one secret that a call presents."""
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1:
        return None
    scheme, _, secret = values[0].partition(" ")
    return secret if scheme.lower() == "bearer" else None


def client_ip(peer):
    """Returns where a call comes from, of gRPC's `ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5`; behind a proxy that would
    be the proxy."""
    kind, _, address = urllib.parse.unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
