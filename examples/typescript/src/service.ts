// The report service of examples/proto, guarded by tokend. It speaks gRPC and Connect over HTTP/2.
//
// Environment: TOKEND_ADDRESS (http://host:port, or https://), TOKEND_SECRET_FILE (the secret of a token with
// `tokend:verify`) and REPORTS_LISTEN (host:port).

import { readFileSync } from "node:fs";
import { createServer } from "node:http2";
import { setTimeout as pause } from "node:timers/promises";

import {
  Code,
  ConnectError,
  createClient,
  createContextValues,
  type ConnectRouter,
  type Interceptor,
} from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";

import { ReportService } from "../gen/reports/v1/report_service_pb.js";
import { TokenService } from "../gen/tokend/v1/token_service_pb.js";
import { guard, peerKey, tokenKey } from "./guard.js";

const SCOPES = new Map([
  ["reports.v1.ReportService/GetReport", ["reports:read"]],
  ["reports.v1.ReportService/DeleteReport", ["reports:write"]],
]);

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new Error(`${name} is not set`);
  }
  return value;
}

/** Pings find a connection that has gone silent; a lost one is made anew by the next call. */
const CHANNEL = { pingIntervalMs: 10_000, pingTimeoutMs: 5_000 };

/** What a call ends with while tokend cannot tell, or when its connection is lost. */
const PASSING = [Code.Unavailable, Code.Aborted, Code.Canceled];

/**
 * Asks again where tokend cannot tell, as ../service-config.json has gRPC's own clients do: Connect knows no service
 * configs. It ends with the call's own deadline.
 */
const askAgain: Interceptor = (next) => async (request) => {
  for (let longest = 100; ; longest = Math.min(2 * longest, 1_000)) {
    try {
      return await next(request);
    } catch (error) {
      const repeatable = request.method.name === "Verify" && !request.signal.aborted;
      if (!repeatable || !PASSING.includes(ConnectError.from(error).code)) {
        throw error;
      }
    }
    await pause(longest * Math.random(), undefined, { signal: request.signal });
  }
};

/** Connects to tokend as a caller of its own. */
function connect() {
  const secret = readFileSync(setting("TOKEND_SECRET_FILE"), "utf8").trim();
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${secret}`);
    return next(request);
  };
  const baseUrl = setting("TOKEND_ADDRESS");
  const interceptors = [askAgain, authorize];
  return createClient(TokenService, createGrpcTransport({ ...CHANNEL, baseUrl, interceptors }));
}

function routes(router: ConnectRouter): void {
  router.service(ReportService, {
    getReport(request, context) {
      const token = context.values.get(tokenKey);
      return {
        text: `report ${request.reportId}`,
        userId: token?.userId,
        organizationId: token?.organizationId,
      };
    },
    deleteReport: () => ({}),
    archiveReport: () => ({}),
  });
}

const adapter = connectNodeAdapter({
  routes,
  interceptors: [guard(connect(), SCOPES)],
  contextValues: (request) => createContextValues().set(peerKey, request.socket.remoteAddress ?? ""),
});
const [host, port] = setting("REPORTS_LISTEN").split(":");
createServer(adapter).listen(Number(port), host);
