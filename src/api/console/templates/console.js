// The few things that a page cannot do without script: copying, the reader's time zone, counting down. Everything
// else works without this file. It never sees the secret that somebody signs in with.
"use strict";
(() => {
  const all = (selector) => document.querySelectorAll(selector);
  const one = (selector) => document.querySelector(selector);
  const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const local = (date) => (Number.isNaN(date.getTime()) ? "" : zoned.format(date));

  // Each time also in the reader's zone.
  for (const time of all("time[datetime]")) {
    time.title = [time.title, local(new Date(time.dateTime))].filter(Boolean).join(" · ");
  }

  // The first problem of a form is where its reader begins.
  one("#problems")?.focus();

  // The code of a link, which no server sees in its address.
  const code = one("#code[data-fragment]");
  const take = () => {
    if (code && location.hash.length > 1) {
      code.value = location.hash.slice(1);
      history.replaceState(null, "", location.pathname);
      code.form.requestSubmit();
    }
  };
  addEventListener("hashchange", take);
  take();

  // Going back to a page that answered a form leads to the form, without a question whether to send it again.
  const back = one("[data-back]");
  if (back) {
    history.replaceState(null, "", back.dataset.back);
  }

  // What others do, without moving anything: states change in their rows, and a line offers the rest.
  const live = one("[data-live]");
  if (live) {
    const others = new Set();
    let more = 0;
    new EventSource(live.dataset.live).addEventListener("message", ({ data }) => {
      const news = JSON.parse(data);
      more += news.more;
      for (const { id, state } of news.changes) {
        const shown = document.getElementById(`t-${id}`)?.querySelector(".state");
        if (shown) {
          [shown.textContent, shown.className] = [state[0], `state ${state[1]}`];
        } else {
          others.add(id);
        }
      }
      const count = others.size + more;
      live.firstElementChild.hidden = count === 0;
      live.firstElementChild.textContent = count === 1 ? "1 change – show" : `${count} changes – show`;
    });
  }

  // Of a text, only what may be a secret or an id is sent.
  const find = one("form[data-find]");
  find?.addEventListener("formdata", ({ formData }) => {
    const words = new RegExp(`\\b(?:${find.dataset.find}_\\w{22,}|[0-9A-Za-z]{22})\\b`, "g");
    formData.set("text", [...new Set(formData.get("text").match(words) ?? [])].join("\n"));
  });

  // Copying, and asking a person who leaves without having copied.
  const secret = one("#secret[role=textbox]");
  if (secret) {
    const [button, said, done] = [one("#copy"), one("#copied"), one("#done")];
    let safe = false;
    const select = () => {
      const range = document.createRange();
      range.selectNodeContents(secret);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
    };
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(secret.textContent);
        return true;
      } catch {
        // No clipboard on a plain origin, or not allowed: as from the keyboard.
        select();
        try {
          return document.execCommand("copy");
        } catch {
          return false;
        }
      }
    };
    button.hidden = false;
    button.addEventListener("click", async () => {
      const copied = await copy();
      safe = safe || copied;
      said.textContent = copied ? "Copied." : "Not copied: it is selected, copy it with the keyboard.";
    });
    document.addEventListener("copy", () => {
      if (getSelection().toString().includes(secret.textContent)) {
        safe = true;
      }
    });
    done.addEventListener("submit", () => {
      safe = true;
    });
    addEventListener("beforeunload", (event) => {
      if (!safe) {
        event.preventDefault();
      }
    });
  }

  // The exact end of what is chosen, before it is generated.
  const form = one("[data-until]")?.closest("form");
  const tell = () => {
    const until = one("[data-until]");
    const chosen = form.elements.expiration.value;
    const [date, time] = [form.elements.date.value, form.elements.time.value || "23:59"];
    const row = form.querySelector(`input[name=expiration][value="${chosen}"]`)?.closest("label");
    const text = chosen === "date" ? date && `${date}T${time}Z` : row?.querySelector("time")?.dateTime;
    const end = new Date(text || NaN);
    if (chosen === "never") {
      until.textContent = "It never expires.";
    } else if (Number.isNaN(end.getTime())) {
      until.textContent = "";
    } else {
      until.textContent = `Expires at ${end.toISOString().slice(0, 16).replace("T", " ")} UTC: ${local(end)}.`;
    }
  };
  if (form) {
    form.addEventListener("input", (event) => {
      if (event.target.name === "date" || event.target.name === "time") {
        form.elements.expiration.value = "date";
      }
      tell();
    });
    tell();
  }

  // Choosing all rows of a page.
  const every = one("#all");
  if (every) {
    every.hidden = false;
    every.addEventListener("change", () => {
      for (const box of every.closest("form").querySelectorAll("input[name=id]")) {
        box.checked = every.checked;
      }
    });
  }

  // What the policy says of the user and the organization that were typed: parts of the same page, loaded again. The
  // document of a request runs no script, and needs no text to become HTML here.
  const loadTerms = () => {
    const { form: nonce, user, organization } = form.elements;
    const query = new URLSearchParams({ form: nonce.value, user: user.value, organization: organization?.value ?? "", owner: form.elements.owner?.value ?? "" });
    const request = new XMLHttpRequest();
    request.responseType = "document";
    request.open("GET", `${form.dataset.terms}?${query}`);
    request.addEventListener("load", () => {
      const typed = new FormData(form);
      for (const part of ["#user-count", "#terms"]) {
        const fresh = request.response?.querySelector(part);
        if (fresh) {
          one(part).replaceWith(document.importNode(fresh, true));
        }
      }
      for (const field of form.querySelectorAll("#terms [name]")) {
        if (field.type === "radio" || field.type === "checkbox") {
          field.checked = typed.getAll(field.name).includes(field.value);
        } else {
          field.value = typed.get(field.name) ?? "";
        }
      }
      tell();
    });
    request.send();
  };
  for (const name of form?.dataset.terms ? ["user", "organization", "owner"] : []) {
    form.elements[name]?.addEventListener("change", loadTerms);
  }

  // How long until a revocation holds everywhere, by the server's clock.
  const effective = one("[data-effective]");
  if (effective) {
    const left = effective.querySelector("[data-left]");
    const end = performance.now() + (Date.parse(effective.dataset.effective) - Date.parse(effective.dataset.now));
    const tick = () => {
      const rest = end - performance.now();
      left.textContent = rest > 0 ? `${(rest / 1000).toFixed(1)} seconds to go` : "This has come.";
      if (rest > 0) {
        setTimeout(tick, Math.min(rest, 100));
      }
    };
    tick();
  }
})();
