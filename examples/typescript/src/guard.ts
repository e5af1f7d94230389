// Lets into a Connect service who tokend says may come in, and nobody else: what is not known, or not listed, is
// refused.

import { Code, ConnectError, createContextKey, type Client, type Interceptor } from "@connectrpc/connect";

import { Verdict, type Token, type TokenService } from "../gen/tokend/v1/token_service_pb.js";

/** Whom a call was let in for. */
export const tokenKey = createContextKey<Token | undefined>(undefined, { description: "token" });

/** Where a call comes from; behind a proxy that would be the proxy. */
export const peerKey = createContextKey("", { description: "peer" });

/** How long tokend may take: its own answers come from memory. */
const TIMEOUT_MS = 2_000;

/**
 * Guards a service. `scopes` are those that each method needs, by `<service>/<method>`; methods that are not
 * there are closed.
 */
export function guard(
  tokend: Client<typeof TokenService>,
  scopes: ReadonlyMap<string, readonly string[]>,
): Interceptor {
  return (next) => async (request) => {
    const required = scopes.get(`${request.service.typeName}/${request.method.name}`);
    if (required === undefined) {
      throw new ConnectError("this method is closed", Code.PermissionDenied);
    }
    const question = {
      secret: bearer(request.header),
      requiredScopes: [...required],
      clientIp: request.contextValues.get(peerKey),
    };
    const answer = await tokend.verify(question, { timeoutMs: TIMEOUT_MS }).catch((error: unknown) => {
      // Ours to mend, not the caller's: it must not take its token for a bad one.
      console.error("tokend:", ConnectError.from(error).message);
      throw new ConnectError("the token cannot be verified now", Code.Unavailable);
    });
    switch (answer.verdict) {
      case Verdict.VALID:
        request.contextValues.set(tokenKey, answer.token);
        return next(request);
      case Verdict.MISSING_SCOPE:
      case Verdict.IP_NOT_ALLOWED:
        throw new ConnectError("the token does not allow this", Code.PermissionDenied);
      case Verdict.RATE_LIMITED:
      case Verdict.CREDITS_EXHAUSTED:
        throw new ConnectError("a limit of the token is used up", Code.ResourceExhausted);
      default:
        throw new ConnectError("the token is not accepted", Code.Unauthenticated);
    }
  };
}

/** Finds the secret that a call presents. */
function bearer(headers: Headers): string {
  const secret = /^bearer ([^ ,]+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (secret === undefined) {
    throw new ConnectError("one bearer token is needed", Code.Unauthenticated);
  }
  return secret;
}
