// Scenarios about portal sessions: beside an application, in its page, and in the page of another site.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { launch, look, settings, SECRET } from "./page.mjs";

const until = async (what, found) => {
  for (let tries = 0; tries < 600; tries += 1) {
    const value = await found();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(what);
};

// Serves a page of an application that shows a link in a frame.
const application = async (origin, link) => {
  const { hostname, port } = new URL(origin);
  const text = `<!doctype html><title>App</title><h1>App</h1><iframe title="Tokens" width="1000" height="700" src="${link}"></iframe>`;
  const server = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end(text));
  await new Promise((resolve) => server.listen(Number(port), hostname, resolve));
  return server;
};

// From the question to a new token and back to the list.
const create = async (view, name) => {
  await view.getByRole("heading", { name: "Manage the tokens of ada?" }).waitFor();
  await view.getByRole("button", { name: "Continue" }).click();
  await view.getByRole("heading", { name: "My tokens" }).waitFor();
  await view.getByText("Signed in as ada").waitFor();
  await view.getByRole("link", { name: "New", exact: true }).click();
  await view.getByLabel("Token Name").fill(name);
  await view.getByLabel("30 days").check();
  await view.getByLabel("reports:*").check();
  await view.getByRole("button", { name: "Generate" }).click();
  const shown = view.getByLabel("The full token");
  await shown.waitFor();
  const secret = await shown.textContent();
  assert.match(secret, SECRET);
  await view.getByRole("button", { name: "Done" }).click();
  await view.getByRole("link", { name, exact: true }).waitFor();
  return secret;
};

export const portal = {
  // An application sends its user here.
  async linked() {
    const context = await launch({ profile: "linked" });
    const page = context.pages()[0];
    const [link] = settings.links;
    await page.goto(link);
    await page.getByRole("heading", { name: "Manage the tokens of ada?" }).waitFor();
    assert.ok(!page.url().includes("#"), page.url());
    await look(page, "portal");
    const secret = await create(page, "linked");
    await look(page, "portal-tokens");
    const [cookie] = await context.cookies(settings.origin);
    assert.deepEqual([cookie.sameSite, cookie.httpOnly, cookie.partitionKey], ["Strict", true, undefined]);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Link", { exact: true }).waitFor();
    assert.equal((await context.cookies(settings.origin)).length, 0);
    // It opens once.
    await page.goto(link);
    await page.getByText("used already").waitFor();
    await look(page, "portal-used");
    await context.close();
    return { secret };
  },

  // An application shows the pages in its own. Browsers keep no other cookie there than one for this application.
  async embedded() {
    const [own, foreign, late] = settings.links;
    const allowed = await application(settings.allowed, own);
    const context = await launch({
      profile: "embedded",
      flags: [],
      args: ["--disable-gpu", "--disable-dev-shm-usage", "--test-third-party-cookie-phaseout"],
    });
    const page = context.pages()[0];
    await page.goto(settings.allowed);
    const frame = page.frameLocator("iframe");
    const secret = await create(frame, "embedded");
    const kept = (await context.cookies()).filter(({ name }) => name.startsWith("tokend"));
    assert.equal(kept.length, 1, JSON.stringify(kept));
    assert.match(kept[0].name, /tokend-portal/);
    assert.deepEqual([kept[0].sameSite, kept[0].secure, kept[0].httpOnly], ["None", true, true]);
    assert.ok(kept[0].partitionKey, JSON.stringify(kept[0]));
    // The session of the frame is none of the console's own, nor of another site's frame.
    const tab = await context.newPage();
    await tab.goto(new URL("/tokens", settings.origin).href);
    await tab.getByLabel("Secret of a token").waitFor();
    await tab.close();
    // What the application's own page sends with the cookie changes nothing, and it reads nothing.
    const sent = await page.evaluate(async (origin) => {
      const body = new URLSearchParams({ form_token: "x" });
      const options = { credentials: "include", mode: "no-cors" };
      const posted = await fetch(`${origin}/sign-out`, { ...options, method: "POST", body }).then(() => "read", () => "refused");
      const read = await fetch(`${origin}/tokens`, { credentials: "include" }).then(() => "read", () => "refused");
      return [posted, read];
    }, settings.origin);
    assert.deepEqual(sent, ["refused", "refused"]);
    await frame.getByRole("link", { name: "embedded", exact: true }).click();
    await frame.getByText("vouched").first().waitFor();
    await frame.getByRole("button", { name: "Sign out" }).click();
    await frame.getByLabel("Link", { exact: true }).waitFor();
    assert.deepEqual((await context.cookies()).filter(({ name }) => name.startsWith("tokend")), []);
    allowed.close();
    allowed.closeAllConnections();

    // Another site's page shows none of it: neither the question nor any other page.
    for (const target of [foreign, new URL("/tokens", settings.origin).href, new URL("/sign-in", settings.origin).href]) {
      const server = await application(settings.foreign, target);
      const refused = [];
      page.on("console", (message) => refused.push(message.text()));
      await page.goto(settings.foreign);
      await until("the frame is refused", () => refused.some((text) => /frame-ancestors|X-Frame-Options/.test(text)));
      const shown = page.frames().filter((found) => found.url().startsWith(settings.origin));
      assert.deepEqual(shown.map((found) => found.url()), []);
      page.removeAllListeners("console");
      server.close();
      server.closeAllConnections();
    }
    // Nor does the allowed page show those of an administrator.
    const server = await application(settings.allowed, new URL("/sign-in", settings.origin).href);
    const refused = [];
    page.on("console", (message) => refused.push(message.text()));
    await page.goto(settings.allowed);
    await until("the frame is refused", () => refused.some((text) => /frame-ancestors|X-Frame-Options/.test(text)));
    server.close();
    server.closeAllConnections();
    // The link that was refused is not used up.
    await page.goto(late);
    await page.getByRole("heading", { name: "Manage the tokens of ada?" }).waitFor();
    await page.goto(foreign);
    await page.getByRole("heading", { name: "Manage the tokens of ada?" }).waitFor();
    await context.close();
    return { secret };
  },
};
