// Third-party OAuth clients, unmodified: oauth4webapi and openid-client. Reads tokend's URL, an id with its secret, and
// a token from its input; introspects the token with each client, then revokes it. Called by
// tests/integrations/oauth.rs.
import { text } from "node:stream/consumers";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";

const { url, id, secret, token } = JSON.parse(await text(process.stdin));
const server = {
  issuer: url,
  introspection_endpoint: `${url}/oauth2/introspect`,
  revocation_endpoint: `${url}/oauth2/revoke`,
};
const client = { client_id: id };
const insecure = { [oauth.allowInsecureRequests]: true };

const said = {};
for (const [name, method] of [
  ["oauth4webapi, basic", oauth.ClientSecretBasic(secret)],
  ["oauth4webapi, post", oauth.ClientSecretPost(secret)],
]) {
  const response = await oauth.introspectionRequest(server, client, method, token, insecure);
  said[name] = await oauth.processIntrospectionResponse(server, client, response);
}
for (const [name, method] of [
  ["openid-client", undefined],
  ["openid-client, basic", openid.ClientSecretBasic(secret)],
]) {
  const configuration = new openid.Configuration(server, id, secret, method);
  openid.allowInsecureRequests(configuration);
  said[name] = await openid.tokenIntrospection(configuration, token);
}
const wrong = await oauth.introspectionRequest(server, client, oauth.ClientSecretBasic("wrong"), token, insecure);
said.wrong = await oauth.processIntrospectionResponse(server, client, wrong).catch((error) => error.code);

const configuration = new openid.Configuration(server, id, secret);
openid.allowInsecureRequests(configuration);
await openid.tokenRevocation(configuration, token);
const response = await oauth.revocationRequest(server, client, oauth.ClientSecretBasic(secret), token, insecure);
await oauth.processRevocationResponse(response);
said.revoked = await openid.tokenIntrospection(configuration, token);
console.log(JSON.stringify(said));
