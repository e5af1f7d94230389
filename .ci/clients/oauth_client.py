"""A third-party OAuth client, unmodified: Authlib. Reads tokend's URL, an id with its secret, and a token from its
input; introspects the token with each method of authentication, then revokes it. Called by
tests/integrations/oauth.rs."""

import json
import sys

from authlib.integrations.requests_client import OAuth2Session

asked = json.load(sys.stdin)
said = {}
for method in ["client_secret_basic", "client_secret_post"]:
    client = OAuth2Session(
        asked["id"],
        asked["secret"],
        token_endpoint_auth_method=method,
        introspection_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    )
    said[method] = client.introspect_token(f"{asked['url']}/oauth2/introspect", token=asked["token"]).json()
revoked = client.revoke_token(f"{asked['url']}/oauth2/revoke", token=asked["token"])
revoked.raise_for_status()
said["revoked"] = client.introspect_token(f"{asked['url']}/oauth2/introspect", token=asked["token"]).json()
print(json.dumps(said))
