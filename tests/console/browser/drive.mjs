// Drives the console in Chromium as people do. Prints one JSON object with what was seen; fails with the first
// expectation that does not hold.
//
//   node drive.mjs SCENARIO < settings.json
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const settings = JSON.parse(readFileSync(0, "utf8"));
const profile = await mkdtemp(join(tmpdir(), "tokend-console-"));
const SECRET = /^tokd_[0-9A-Za-z]{71}$/;

const launch = (options = {}) =>
  chromium.launchPersistentContext(join(profile, options.profile ?? "one"), {
    executablePath: settings.chromium,
    chromiumSandbox: false,
    viewport: { width: 1280, height: 800 },
    args: ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", ...(settings.flags ?? [])],
    ignoreHTTPSErrors: true,
    timezoneId: "America/New_York",
    locale: "en-GB",
    ...options,
  });

const signIn = async (page, origin = settings.origin) => {
  await page.goto(origin);
  await page.getByLabel("Secret of a token").fill(settings.secret);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "API Tokens" }).waitFor();
};

// Administration > System > API Tokens > New > Token Name, User, Expiration > Generate > copy > Done > the list.
const clicks = async (page, name, expiration) => {
  assert.match(await page.getByRole("navigation", { name: "Breadcrumb" }).innerText(), /Administration\s+System\s+API Tokens/);
  await page.getByRole("link", { name: "New", exact: true }).click();
  await page.getByLabel("Token Name").fill(name);
  await page.getByLabel("User", { exact: true }).fill("ada");
  await expiration(page);
  await page.getByRole("button", { name: "Generate" }).click();
  const shown = page.getByLabel("The full token");
  await shown.waitFor();
  const secret = await shown.textContent();
  assert.match(secret, SECRET);
  return secret;
};

const done = async (page, name) => {
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("heading", { name: "API Tokens" }).waitFor();
  const row = page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
  await row.waitFor();
  return row.innerText();
};

// What is pasted is what was copied. The page itself may not read the clipboard.
const pasted = async (page, secret) => {
  const field = page.getByLabel("User", { exact: true });
  await field.click();
  await page.keyboard.press("Control+V");
  assert.equal(await field.inputValue(), secret);
  await field.fill("");
};

const never = (page) => page.getByLabel("No expiration").check();

// What a page says of itself to a screen reader and in any colours has no violation.
const accessible = async (page, where) => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // In a world of its own: the page's own policy lets nothing be added to it.
    const session = await page.context().newCDPSession(page);
    const { frameTree } = await session.send("Page.getFrameTree");
    const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
    const run = (expression) =>
      session.send("Runtime.evaluate", { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true });
    await run(`${axe};0`);
    const { result, exceptionDetails } = await run(
      "axe.run({ resultTypes: ['violations'] }).then(({ violations, passes }) => JSON.stringify({ passes: passes.length, " +
        "violations: violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => html + failureSummary)]) }))",
    );
    assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
    const { passes, violations } = JSON.parse(result.value);
    assert.deepEqual(violations, [], `${where} in ${colorScheme}`);
    assert.ok(passes > 5, `${where}: axe found ${passes} rules to check`);
    await session.detach();
  }
  await page.emulateMedia({ colorScheme: null });
};

const pictures = async (page, name) => {
  if (!settings.pictures) return;
  for (const [suffix, colorScheme, width] of [["light", "light", 1280], ["dark", "dark", 1280], ["360", "light", 360]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 800 });
    await page.screenshot({ path: join(settings.pictures, `${name}-${suffix}.png`), fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize({ width: 1280, height: 800 });
};

// Nothing is wider than the page, on a phone too.
const fits = async (page, where) => {
  await page.setViewportSize({ width: 360, height: 740 });
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll("body *")]
      .filter((element) => element.getBoundingClientRect().right > innerWidth && !element.closest("pre, .unseen, .skip, thead"))
      .map((element) => element.outerHTML.slice(0, 100)),
  );
  assert.deepEqual(wide, [], `${where} at 360 px`);
  await page.setViewportSize({ width: 1280, height: 800 });
};

const look = async (page, name) => {
  await accessible(page, name);
  await fits(page, name);
  await pictures(page, name);
};

const scenarios = {
  // The clicks with script: every page looked at, the secret under reload, back and a second click, and copied.
  async clicks() {
    const context = await launch();
    const page = context.pages()[0];
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    await page.goto(settings.origin);
    await look(page, "sign-in");
    await page.getByLabel("Secret of a token").fill("tokd_wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("This is not the text of a secret").waitFor();
    complaints.length = 0; // Chromium's own line about the 401.
    await signIn(page);
    await look(page, "empty");

    await page.getByRole("link", { name: "New", exact: true }).click();
    await look(page, "new");
    await page.getByLabel("30 days").check();
    assert.match(await page.locator("#until").innerText(), /Expires at .* UTC: .*(GMT-[45]|EST|EDT)/);
    await page.getByRole("button", { name: "Generate" }).click();
    await page.getByText("Nothing was created yet").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.id), "problems");
    assert.equal(await page.getByLabel("Token Name").getAttribute("aria-invalid"), "true");
    await look(page, "new-problems");
    complaints.length = 0;
    await page.getByRole("link", { name: "API Tokens" }).click();

    const secret = await clicks(page, "laptop", async (page) => {
      await page.getByLabel("Date", { exact: true }).fill("2099-12-31");
      assert.ok(await page.getByLabel("Expiration date").isChecked(), "a date chooses the date");
    });
    const shown = page.url();
    assert.ok(!shown.includes(secret.slice(30)));
    await look(page, "created");
    // Whoever leaves without having copied is asked back.
    const asked = page.waitForEvent("dialog");
    await page.locator("h1").click();
    const leaving = page.reload().catch(() => {});
    const dialog = await asked;
    assert.equal(dialog.type(), "beforeunload");
    await dialog.accept();
    await leaving;
    assert.equal(await page.getByLabel("The full token").textContent(), secret, "reload");
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    await page.goBack();
    await page.getByRole("heading", { name: "New API token" }).waitFor();
    await page.goForward();
    assert.equal(await page.getByLabel("The full token").textContent(), secret, "back and forward");
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    const row = await done(page, "laptop");
    await pasted(page, secret);
    for (const text of ["ada", "Active", "Never"]) assert.ok(row.includes(text), row);
    await page.goto(shown);
    await page.getByText("The secret is not shown again").waitFor();
    await page.goto(`${settings.origin}/tokens`);

    // A double click on Generate makes one token.
    await page.getByRole("link", { name: "New", exact: true }).click();
    await page.getByLabel("Token Name").fill("twice");
    await page.getByLabel("User", { exact: true }).fill("ada");
    await never(page);
    await page.getByRole("button", { name: "Generate" }).dblclick();
    await page.getByLabel("The full token").waitFor();
    await done(page, "twice");
    assert.equal(await page.getByRole("link", { name: "twice", exact: true }).count(), 1);

    // Keys alone: to the list, the form and the button.
    await page.goto(`${settings.origin}/tokens/new?name=keys&user=ada`);
    await page.getByLabel("7 days").focus();
    await page.keyboard.press("Space");
    await page.keyboard.press("Enter");
    await page.getByLabel("The full token").waitFor();
    await page.getByLabel("The full token").focus();
    await done(page, "keys");

    await look(page, "list");
    await page.getByRole("link", { name: "laptop", exact: true }).click();
    await look(page, "token");
    await page.getByRole("link", { name: "Revoke…" }).click();
    await look(page, "revoke");
    await page.getByLabel("Reason").fill("lost at the station");
    await page.getByLabel("Type “revoke” to confirm").fill("revoke");
    await page.getByRole("button", { name: "Revoke" }).click();
    await page.getByText("This has come.").waitFor();
    await look(page, "revoked");
    // Chromium logs each answer that is not 2xx, such as the 410 above; nothing else may stand there.
    const real = complaints.filter((text) => !text.startsWith("Failed to load resource: the server responded"));
    assert.deepEqual(real, []);

    await page.goto(`${settings.origin}/tokens`);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Secret of a token").waitFor();
    await page.goBack();
    await page.getByLabel("Secret of a token").waitFor();
    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
    assert.deepEqual(kept, [0, 0, ""]);
    await context.close();

    // Neither secret is left in anything that the browser has written.
    const canaries = [secret.slice(30), settings.secret.slice(30)];
    for (const entry of await readdir(profile, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const bytes = await readFile(join(entry.parentPath, entry.name));
      for (const canary of canaries) {
        for (const encoding of ["utf8", "utf16le"]) {
          assert.ok(!bytes.includes(Buffer.from(canary, encoding)), `${entry.name} has a secret`);
        }
      }
    }
    return { secret };
  },

  // The same clicks without script, then both schemes of colours that only a setting forces.
  async plain() {
    const context = await launch({ javaScriptEnabled: false, profile: "plain" });
    const page = context.pages()[0];
    await signIn(page);
    const secret = await clicks(page, "plain", never);
    assert.ok(await page.getByRole("button", { name: "Copy" }).isHidden(), "what needs script is not there");
    await page.reload();
    assert.equal(await page.getByLabel("The full token").textContent(), secret);
    const row = await done(page, "plain");
    assert.ok(row.includes("Never"), row);
    await page.getByRole("link", { name: "plain", exact: true }).click();
    await page.getByRole("link", { name: "Revoke…" }).click();
    await page.getByLabel("Type “revoke” to confirm").fill("revoke");
    await page.getByRole("button", { name: "Revoke" }).click();
    await page.getByText("Refused everywhere from").waitFor();
    await context.close();
    return { secret };
  },

  // Copying where browsers give pages no clipboard: on a plain name. And over TLS.
  async copy() {
    const context = await launch({ profile: "copy" });
    const page = context.pages()[0];
    await signIn(page);
    const name = settings.secure ? "copied over TLS" : "copied plainly";
    const secret = await clicks(page, name, never);
    assert.equal(await page.evaluate(() => isSecureContext), settings.secure);
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    await done(page, name);
    await pasted(page, secret);
    await context.close();
    return { secret };
  },
};

try {
  const seen = await scenarios[process.argv[2]]();
  console.log(JSON.stringify(seen));
} finally {
  await rm(profile, { recursive: true, force: true });
}
