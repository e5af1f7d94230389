// The report service of examples/proto, guarded by tokend. It speaks gRPC and Connect over HTTP/2.
//
// Environment: TOKEND_ADDRESS (http://host:port, or https://), TOKEND_SECRET_FILE (the secret of a token with
// `tokend:verify`) and REPORTS_LISTEN (host:port).

import { readFileSync } from "node:fs";
import { createServer } from "node:http2";

import {
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

/** Connects to tokend as a caller of its own. */
function connect() {
  const secret = readFileSync(setting("TOKEND_SECRET_FILE"), "utf8").trim();
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${secret}`);
    return next(request);
  };
  const baseUrl = setting("TOKEND_ADDRESS");
  return createClient(TokenService, createGrpcTransport({ ...CHANNEL, baseUrl, interceptors: [authorize] }));
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
