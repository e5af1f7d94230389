// Scenarios about what is found, the audit log, policies, and news of the list.
import assert from "node:assert/strict";
import { launch, look, settings, signIn } from "./page.mjs";

const open = (page, path) => page.goto(new URL(path, settings.origin).href);

export const rooms = {
  // Each page with script: what is sent of a text, the rule that decided, the log, and a policy before it is saved.
  async rooms() {
    const context = await launch({ profile: "rooms" });
    const page = context.pages()[0];
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    await signIn(page);

    await page.getByRole("link", { name: "Is this ours?" }).click();
    await look(page, "find");
    const line = `GET /?t=${settings.leaked}&canary=in-the-log ${"x".repeat(100_000)}`;
    await page.getByLabel("Text").fill(line);
    const [request] = await Promise.all([
      page.waitForRequest((request) => request.method() === "POST"),
      page.getByRole("button", { name: "Find" }).click(),
    ]);
    const sent = new URLSearchParams(request.postData()).get("text");
    assert.equal(sent, settings.leaked, "only what may be a secret is sent");
    await page.getByText("It is ours, and it is accepted").waitFor();
    assert.ok(!(await page.content()).includes(settings.leaked.slice(30)), "nothing of it is shown");
    await look(page, "found");

    await page.getByRole("link", { name: "Why?" }).click();
    await page.getByLabel("Secret, or id of a token").fill(settings.leaked);
    await page.getByLabel("Scopes that are asked for").fill("reports:write");
    await page.getByRole("button", { name: "Judge" }).click();
    await page.getByText("Refused: the token lacks a scope").waitFor();
    await look(page, "why");

    await page.getByRole("link", { name: "Audit log" }).click();
    await page.getByLabel("Created", { exact: true }).check();
    await page.getByRole("button", { name: "Apply" }).click();
    await page.getByRole("row").filter({ hasText: "ada" }).first().waitFor();
    await look(page, "audit");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Export as JSONL" }).click(),
    ]);
    const chunks = [];
    for await (const chunk of await download.createReadStream()) chunks.push(chunk);
    const lines = Buffer.concat(chunks).toString().trim().split("\n").map((text) => JSON.parse(text));
    assert.ok(lines.length > 1 && lines.every(({ kind }) => kind === "TOKEN_EVENT_KIND_CREATED"), `${lines.length}`);

    await page.getByRole("link", { name: "Usage" }).click();
    await page.getByRole("heading", { name: "Never used" }).waitFor();
    // The verifications are counted a moment later.
    while ((await page.getByText("Numbers by day").count()) === 0) await page.reload();
    await look(page, "usage");

    await open(page, "/policy?organization=default");
    await page.getByLabel("Longest lifetime").fill("90d");
    await page.getByLabel("Every token must expire").check();
    await page.getByRole("button", { name: "Check before saving" }).click();
    await page.getByText("tokens break it").waitFor();
    await look(page, "policy");
    await page.getByRole("button", { name: "Save this policy" }).click();
    await page.getByText("Saved.").waitFor();
    const real = complaints.filter((text) => !text.startsWith("Failed to load resource: the server responded"));
    assert.deepEqual(real, []);
    await context.close();

    // Without script the whole text is sent, and the same is found.
    const plain = await launch({ profile: "rooms-plain", javaScriptEnabled: false });
    const tab = plain.pages()[0];
    await signIn(tab);
    await open(tab, "/find");
    await tab.getByLabel("Text").fill(`some log ${settings.leaked}`);
    await tab.getByRole("button", { name: "Find" }).click();
    await tab.getByText("It is ours, and it is accepted").waitFor();
    await open(tab, "/audit?kind=created");
    await tab.getByRole("row").filter({ hasText: "ada" }).first().waitFor();
    await plain.close();
    return {};
  },

  // What somebody else does appears in an open list, and nothing on it moves.
  async live() {
    const context = await launch({ profile: "live" });
    const page = context.pages()[0];
    await signIn(page);
    const other = await launch({ profile: "live-other" });
    const tab = other.pages()[0];
    await signIn(tab);
    const place = async () => page.locator("tbody tr").evaluateAll((rows) => rows.map((row) => JSON.stringify(row.getBoundingClientRect())));
    const before = await place();
    const row = page.getByRole("row").filter({ hasText: settings.name });
    assert.ok((await row.innerText()).includes("Active"));

    await open(tab, `/tokens/${settings.id}/revoke`);
    await tab.getByLabel("Type “revoke” to confirm").fill("revoke");
    await tab.getByRole("button", { name: "Revoke" }).click();
    await row.getByText("Revoked").waitFor();
    assert.deepEqual(await place(), before, "nothing moves");
    assert.ok(await page.locator(".live a").isHidden());

    await open(tab, "/tokens/new?name=fresh&user=ada&expiration=7d");
    await tab.getByRole("button", { name: "Generate" }).click();
    await tab.getByLabel("The full token").waitFor();
    const bar = page.getByRole("link", { name: "1 change – show" });
    await bar.waitFor();
    assert.deepEqual(await place(), before, "nothing moves");
    await look(page, "live");
    await bar.click();
    await page.getByRole("link", { name: "fresh", exact: true }).waitFor();
    await context.close();
    await other.close();
    return {};
  },
};
