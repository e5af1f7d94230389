// Scenarios about what is done with tokens that exist: one, several, all of a user.
import assert from "node:assert/strict";
import { contrasts, launch, look, settings, signIn, SECRET } from "./page.mjs";

const at = (path) => new URL(path, settings.origin).href;

const open = async (page, name, query = "?organization=acme") => {
  await page.goto(at(`/tokens${query}`));
  await page.getByRole("link", { name, exact: true }).first().click();
  await page.getByRole("heading", { name, level: 1 }).waitFor();
};

const act = (page, name) => page.getByRole("link", { name, exact: true }).click();
const send = (page, name) => page.getByRole("button", { name, exact: true }).click();
const pick = (page, name) => page.getByRole("checkbox", { name: `Choose ${name}`, exact: true });
const confirm = async (page) => {
  await page.getByLabel("Reason").fill("left the company");
  await page.getByLabel("Type “revoke” to confirm").fill("revoke");
};

// Back leads to the page before the form: no browser asks whether to send it again.
const back = async (page, heading) => {
  await page.goBack();
  await page.getByRole("heading", { name: heading }).waitFor();
  await page.goForward();
};

export const acts = {
  // Every act with script, each page looked at.
  async acts() {
    const context = await launch({ profile: "acts" });
    const page = context.pages()[0];
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    await signIn(page);

    // The policy, as soon as organization and user are typed; what was typed and chosen before stays.
    await page.goto(at("/tokens/new?name=report"));
    await page.getByLabel("30 days").check();
    await page.getByLabel("Organization optional").fill("acme");
    await page.getByLabel("User", { exact: true }).fill("Ada Lovelace");
    await page.getByLabel("Organization optional").press("Tab");
    await page.getByText("3rd of 10 tokens").waitFor();
    assert.ok(await page.getByLabel("30 days").isChecked(), "the choice stays");
    await page.getByLabel("reports:*").check();
    await page.getByLabel("Other scopes").fill("reports:read");
    assert.match(await page.locator("#until").innerText(), /Expires at .* UTC/);
    await look(page, "new-policy");
    await page.getByLabel("Organization optional").fill("other");
    await page.getByLabel("Organization optional").press("Tab");
    await page.getByLabel("Scopes optional", { exact: true }).waitFor();
    assert.equal(await page.getByLabel("Scopes optional", { exact: true }).inputValue(), "reports:read");
    assert.equal(await page.getByText("only with tokend:root").count(), 0);

    // Edit.
    await open(page, "laptop");
    await act(page, "Edit");
    await page.getByLabel("Labels").fill("team=research");
    await page.getByText("The same from a shell").click();
    await look(page, "edit");
    await send(page, "Save");
    await page.getByText("This has come.").waitFor();
    await back(page, "Edit laptop");

    // Rotate.
    await open(page, "laptop");
    await act(page, "Rotate…");
    await page.getByLabel("24 hours").check();
    await look(page, "rotate");
    await send(page, "Rotate");
    const secret = await page.getByLabel("The full token").textContent();
    assert.match(secret, SECRET);
    await look(page, "rotated");
    await back(page, "Rotate laptop");
    assert.equal(await page.getByLabel("The full token").textContent(), secret);
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByText("Copied.").waitFor();
    await send(page, "Done");
    await page.getByRole("heading", { name: "API Tokens" }).waitFor();

    // Disable and enable.
    await page.goto(at(`/tokens/${settings.old}`));
    await page.getByText("Superseded").first().waitFor();
    await look(page, "token");
    await contrasts(page, "token");
    await act(page, "Disable…");
    await page.getByLabel("Reason").fill("on leave");
    await look(page, "disable");
    await send(page, "Disable");
    await page.getByText("This has come.").waitFor();
    await page.getByText("on leave").first().waitFor();
    await look(page, "disabled");
    await back(page, "Disable laptop?");
    await act(page, "Enable…");
    await look(page, "enable");
    await send(page, "Enable");
    await page.getByText("Accepted everywhere from").waitFor();

    // New like this one.
    await act(page, "New like this one");
    assert.equal(await page.getByLabel("User", { exact: true }).inputValue(), "Ada Lovelace");
    assert.equal(await page.getByLabel("Labels").inputValue(), "team=research");

    // The list, and several at once.
    await page.goto(at("/tokens?organization=acme"));
    await look(page, "list");
    await contrasts(page, "list");
    await page.getByLabel("Choose all on this page").check();
    for (const name of ["nightly export", "staging", "phone"]) await pick(page, name).uncheck();
    await send(page, "Revoke…");
    await look(page, "chosen");
    await confirm(page);
    await send(page, "Revoke");
    await page.getByText("Refused everywhere from").waitFor();
    await look(page, "chosen-done");
    await back(page, /Revoke these/);

    // All of a user.
    await page.goto(at("/tokens?organization=acme&user=Charles"));
    await act(page, "Revoke all of this user…");
    await look(page, "user");
    await confirm(page);
    await send(page, "Revoke all");
    await page.getByRole("heading", { name: "All tokens of Charles are revoked" }).waitFor();
    await look(page, "user-revoked");
    // Chromium logs each answer that is not 2xx; nothing else may stand there.
    const real = complaints.filter((text) => !text.startsWith("Failed to load resource: the server responded"));
    assert.deepEqual(real, []);
    await context.close();
    return { secret };
  },

  // The same without script.
  async actsPlainly() {
    const context = await launch({ javaScriptEnabled: false, profile: "acts-plainly" });
    const page = context.pages()[0];
    await signIn(page);
    await page.goto(at("/tokens/new?organization=acme&user=Ada+Lovelace"));
    await page.getByText("3rd of 10 tokens").waitFor();
    await open(page, "laptop");
    await act(page, "Edit");
    await page.getByLabel("Labels").fill("team=research");
    await send(page, "Save");
    await page.getByText("Every replica judges by it from").waitFor();
    await act(page, "Rotate…");
    await page.getByLabel("1 hour").check();
    await send(page, "Rotate");
    const secret = await page.getByLabel("The full token").textContent();
    await send(page, "Done");
    await page.goto(at(`/tokens/${settings.old}`));
    await act(page, "Disable…");
    await send(page, "Disable");
    await act(page, "Enable…");
    await send(page, "Enable");
    await page.getByText("Accepted everywhere from").waitFor();
    await page.goto(at("/tokens?organization=acme"));
    assert.ok(await page.getByLabel("Choose all on this page").isHidden(), "what needs script is not there");
    await pick(page, "nightly export").check();
    await send(page, "Revoke…");
    await confirm(page);
    await send(page, "Revoke");
    await page.getByText("1 of 1 revoked").waitFor();
    await page.goto(at("/tokens?organization=acme&user=Charles"));
    await act(page, "Revoke all of this user…");
    await confirm(page);
    await send(page, "Revoke all");
    await page.getByText("Refused everywhere from").waitFor();
    await context.close();
    return { secret };
  },
};
