// An admin's page, in a browser: creates a token, sees it verified, watches it being revoked. It calls tokend
// itself, by gRPC-Web; tokend lets it, because its origin is among `--grpc-web-origins`.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import {
  ChangeKind,
  CreateTokenRequestSchema,
  TokenService,
  Verdict,
} from "../gen/tokend/v1/token_service_pb.js";

/** What the server of the page says: where tokend is, and the secret that its user has typed. */
interface Settings {
  readonly tokend: string;
  readonly secret: string;
}

function connect({ tokend, secret }: Settings) {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${secret}`);
    return next(request);
  };
  return createClient(
    TokenService,
    createGrpcWebTransport({ baseUrl: tokend, interceptors: [authorize], defaultTimeoutMs: 10_000 }),
  );
}

/** Walks a token through its life; returns what was seen on the way. */
async function walk(settings: Settings): Promise<Record<string, unknown>> {
  const tokend = connect(settings);
  const request = create(CreateTokenRequestSchema, {
    userId: "ada",
    name: "from a browser",
    expiration: { case: "ttl", value: { seconds: 600n } },
    scopes: ["reports:read"],
  });
  const { token, secret } = await tokend.createToken(request);
  const id = token?.id ?? "";
  const seen = await tokend.getToken({ tokenId: id });
  const verified = await tokend.verify({ secret, requiredScopes: ["reports:read"] });
  const lacking = await tokend.verify({ secret, requiredScopes: ["reports:write"] });

  let revokes = false;
  let revoked = "";
  for await (const news of tokend.watchTokens({ organizationId: token?.organizationId })) {
    if (!revokes) {
      // The first says from where it watches.
      revokes = true;
      await tokend.revokeToken({ target: { case: "tokenId", value: id }, reason: "over" });
    }
    const change = news.changes.find((change) => change.tokenId === id && change.kind === ChangeKind.REVOKED);
    if (change !== undefined) {
      revoked = change.tokenId;
      break;
    }
  }
  return {
    id,
    secret,
    shownAgain: JSON.stringify(seen, (_, value) => (typeof value === "bigint" ? `${value}` : value)).includes(secret),
    verdicts: [verified, lacking, await tokend.verify({ secret })].map((answer) => Verdict[answer.verdict]),
    revoked,
    stranger: await refusal(connect({ ...settings, secret: "nonsense" })),
  };
}

/** Returns as what a caller that is none is refused. */
async function refusal(tokend: ReturnType<typeof connect>): Promise<string> {
  try {
    await tokend.getToken({ tokenId: "0" });
    return "answered";
  } catch (error) {
    return Code[ConnectError.from(error).code];
  }
}

async function report(): Promise<void> {
  const settings = (await (await fetch("/settings")).json()) as Settings;
  const result = await walk(settings).catch((error: unknown) => {
    const { code, rawMessage } = ConnectError.from(error);
    return { failed: Code[code], message: rawMessage };
  });
  await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}

await report();
