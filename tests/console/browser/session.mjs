// Scenarios about sessions: signing in by a link, and the list of sessions.
import assert from "node:assert/strict";
import { launch, look, settings } from "./page.mjs";

// Returns the page's HTML once no navigation replaces it.
const settledContent = async (page) => {
  for (;;) {
    try {
      return await page.content();
    } catch (error) {
      if (!/navigating/.test(error.message)) throw error;
      await page.waitForLoadState();
    }
  }
};

const cookies = async (context) => (await context.cookies(settings.origin)).length;

export const session = {
  // `tokend login` asks; the person signs in first, and the browser then goes to the terminal by itself. Without script the
  // code is typed.
  async login() {
    const typed = settings.typed;
    const context = await launch({ profile: "login", javaScriptEnabled: !typed });
    const page = context.pages()[0];
    await page.goto(settings.url);
    await page.getByLabel("Secret of a token").fill(settings.secret);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: /^Allow the command line on .* to act as you\?$/ }).waitFor();
    if (!typed) await look(page, "login");
    await page.getByRole("button", { name: "Allow" }).click();
    let code = "";
    if (typed) {
      code = await page.getByLabel("The code").textContent();
    } else {
      await page.getByText("The terminal goes on.").waitFor();
      assert.ok(page.url().startsWith("http://127.0.0.1:"), page.url());
    }
    await context.close();
    return { code };
  },
  // The link opens a question, and only its answer signs in. The code stays in no address.
  async link() {
    const context = await launch({ profile: "link" });
    const page = context.pages()[0];
    const [first, second] = settings.links;
    await page.goto(new URL("/link", settings.origin).href);
    await look(page, "link");
    await page.goto(first);
    await page.getByRole("heading", { name: "Sign in as root?" }).waitFor();
    assert.equal(await cookies(context), 0, "the question signs nobody in");
    assert.ok(!page.url().includes("#"), page.url());
    await look(page, "confirm");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "API Tokens" }).waitFor();
    assert.equal(await cookies(context), 1);
    // Back leads to the form for a link, not to a question whether to send one again, and to no page that has the code.
    await page.goBack();
    await page.getByRole("heading", { name: "Sign in by a link" }).waitFor();
    assert.ok(!(await settledContent(page)).includes(first.split("#")[1]), "the code is gone");
    await page.goto(settings.origin);
    await page.getByRole("link", { name: "Sessions" }).click();
    await page.getByText("This session").waitFor();
    await page.getByRole("cell", { name: "A link" }).waitFor();
    await look(page, "sessions");
    await page.goto(first);
    await page.goto(new URL("/link", settings.origin).href);
    await page.goto(first);
    await page.getByText("used already").waitFor();
    await look(page, "link-used");
    await context.close();

    // Without script the link is pasted.
    const plain = await launch({ profile: "link-plain", javaScriptEnabled: false });
    const tab = plain.pages()[0];
    await tab.goto(second);
    await tab.getByLabel("Link", { exact: true }).fill(second);
    await tab.getByRole("button", { name: "Continue" }).click();
    await tab.getByRole("button", { name: "Sign in" }).click();
    await tab.getByRole("heading", { name: "API Tokens" }).waitFor();
    await tab.goto(new URL("/sessions", settings.origin).href);
    await tab.getByRole("button", { name: "Sign out everywhere" }).click();
    await tab.getByLabel("Secret of a token").waitFor();
    await plain.close();
    return {};
  },
};
