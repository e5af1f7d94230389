// Scenarios about tokens: creating, copying, revoking.
import assert from "node:assert/strict";
import { clicks, done, launch, look, never, pasted, settings, signIn, unwritten } from "./page.mjs";

export const tokens = {
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
    // A person who leaves without having copied is asked.
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

    await page.getByRole("link", { name: "laptop", exact: true }).click();
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

    await unwritten(secret);
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

  // Shown until Done, and copied: where browsers give pages no clipboard, on a plain name; and over TLS.
  async copy() {
    const context = await launch({ profile: "copy" });
    const page = context.pages()[0];
    await signIn(page);
    const name = settings.secure ? "copied over TLS" : "copied plainly";
    const secret = await clicks(page, name, never);
    assert.equal(await page.evaluate(() => isSecureContext), settings.secure);
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    const shown = page.url();
    await page.reload();
    assert.equal(await page.getByLabel("The full token").textContent(), secret, "reload");
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    await done(page, name);
    await pasted(page, secret);
    await page.goto(shown);
    await page.getByText("The secret is not shown again").waitFor();
    await context.close();
    await unwritten(secret);
    return { secret };
  },
};
