// What every scenario does with a page: sign in, create a token, and look at it: with axe-core and pa11y, at the width
// of a phone, and as pictures.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pa11y from "pa11y";
import { chromium } from "playwright-core";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
export const settings = JSON.parse(readFileSync(0, "utf8"));
export const profile = await mkdtemp(join(tmpdir(), "tokend-console-"));
export const SECRET = /^tokd_[0-9A-Za-z]{71}$/;

export const launch = (options = {}) =>
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

export const signIn = async (page, origin = settings.origin) => {
  await page.goto(origin);
  await page.getByLabel("Secret of a token").fill(settings.secret);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "API Tokens" }).waitFor();
};

// Administration > System > API Tokens > New > Token Name, User, Expiration > Generate > copy > Done > the list.
export const clicks = async (page, name, expiration) => {
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

export const done = async (page, name) => {
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("heading", { name: "API Tokens" }).waitFor();
  const row = page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
  await row.waitFor();
  return row.innerText();
};

// What is pasted is what was copied. The page itself may not read the clipboard.
export const pasted = async (page, secret) => {
  const field = page.getByLabel("User", { exact: true });
  await field.click();
  await page.keyboard.press("Control+V");
  assert.equal(await field.inputValue(), secret);
  await field.fill("");
};

// Neither this secret nor the one that signed in is left in anything that browsers have written, such as what they
// restore a session from.
export const unwritten = async (secret) => {
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
};

export const never = (page) => page.getByLabel("No expiration").check();

// Runs checks in a world of their own beside the page's script: the page's policy lets nothing be added to it.
const apart = async (page, work) => {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
  const evaluate = async (script, argument) => {
    const expression = typeof script === "function" ? `(${script})(${JSON.stringify(argument)})` : `${script};0`;
    const call = { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", call);
    assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
    return result.value;
  };
  await work(evaluate);
  await session.detach();
};

// What a page says of itself to a screen reader and in any colours has no violation of axe-core's rules, nor of those of
// WCAG 2 AA that pa11y checks with HTML_CodeSniffer.
const accessible = async (page, where) => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await apart(page, async (evaluate) => {
      await evaluate(axe);
      const { passes, violations } = await evaluate(async () => {
        const { passes, violations } = await axe.run({ resultTypes: ["violations"] });
        const found = ({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => html + failureSummary)];
        return { passes: passes.length, violations: violations.map(found) };
      });
      assert.deepEqual(violations, [], `${where} in ${colorScheme}`);
      assert.ok(passes > 5, `${where}: axe found ${passes} rules to check`);

      // All that pa11y asks of a browser.
      const seen = { evaluate, on() {}, off() {}, setUserAgent() {}, setViewport() {} };
      const { documentTitle, issues } = await pa11y(page.url(), {
        browser: {},
        page: seen,
        ignoreUrl: true,
        runners: ["htmlcs"],
        standard: "WCAG2AA",
        includeNotices: true,
      });
      const errors = issues.filter(({ type }) => type === "error").map(({ code, context }) => [code, context]);
      assert.deepEqual(errors, [], `${where} in ${colorScheme}`);
      assert.ok(documentTitle.endsWith("tokend") && issues.length > 5, `${where}: pa11y looked at ${documentTitle}`);
    });
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

// With the colours of the reader's own choice, what can be pressed still looks so, and what has the focus too.
const forced = async (page, where) => {
  await page.emulateMedia({ forcedColors: "active" });
  const bare = await page.evaluate(() =>
    [...document.querySelectorAll("button, .button, input:not([type=hidden]), textarea, select")]
      .filter((element) => element.checkVisibility() && !["radio", "checkbox"].includes(element.type))
      .filter((element) => getComputedStyle(element).borderTopStyle === "none")
      .map((element) => element.outerHTML.slice(0, 100)),
  );
  assert.deepEqual(bare, [], `${where} in forced colours`);
  await page.emulateMedia({ forcedColors: null });
};

// In the few colours that a person has chosen, every text can still be read.
export const contrasts = async (page, name) => {
  await page.emulateMedia({ forcedColors: "active" });
  await accessible(page, `${name} in forced colours`);
  await page.emulateMedia({ forcedColors: null });
};

export const look = async (page, name) => {
  await accessible(page, name);
  await forced(page, name);
  await fits(page, name);
  await pictures(page, name);
};
