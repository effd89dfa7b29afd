// Suspect labels: each is kept or changed with a button or a key, and "Save" makes a new version.
// On the page of a dataset the list is loaded into <div data-suspects="/datasets/…/suspects">, at
// once with `data-load`, otherwise when its link is clicked.
import { showAlert } from "./actions.js";
import { call, throwProblem } from "./api.js";
import { fetchPage } from "./morph.js";

const KEYS = { k: "keep", c: "change", u: "undo", ArrowDown: "next", ArrowUp: "previous" };

class Review {
  constructor(form) {
    this.form = form;
    this.rows = [...form.querySelectorAll(".suspect")];
    this.save = form.querySelector("button.primary");
    this.output = form.querySelector("output");
    this.key = null; // of the request; a retry of the same decisions sends it again
    if (!this.save) return; // an older version is only shown
    form.addEventListener("click", (event) => {
      const button = event.target.closest("[data-decide]");
      if (button) this.toggle(button.closest(".suspect"), button.dataset.decide);
    });
    form.addEventListener("change", (event) => {
      if (event.target.matches("select")) this.decide(event.target.closest(".suspect"), event.target.value ? "other" : "");
    });
    form.addEventListener("focusin", (event) => this.moveTabStop(event.target.closest(".suspect")));
    form.addEventListener("keydown", (event) => this.onKey(event));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    addEventListener("beforeunload", (event) => {
      if (form.isConnected && this.decided().length && !this.saved) event.preventDefault();
    });
  }

  /** Rows with a decision. */
  decided() {
    return this.rows.filter((row) => row.dataset.decision);
  }

  /** Decides again what was decided before the list was loaded anew, on rows that are still there. */
  restore(decisions) {
    for (const { keep, decision, label } of decisions) {
      const row = this.rows.find((each) => each.dataset.keep === keep);
      if (!row || !this.save) continue;
      if (decision === "other") row.querySelector("select").value = label;
      this.decide(row, decision);
    }
  }

  toggle(row, decision) {
    this.decide(row, row.dataset.decision === decision ? "" : decision);
  }

  /** `decision` is keep, change, other (the selected label), or empty. */
  decide(row, decision) {
    row.dataset.decision = decision;
    for (const button of row.querySelectorAll("[data-decide]")) {
      button.setAttribute("aria-pressed", button.dataset.decide === decision);
    }
    const select = row.querySelector("select");
    if (select && decision !== "other") select.value = "";
    this.key = null;
    const decided = this.decided();
    const kept = decided.filter((each) => each.dataset.decision === "keep").length;
    this.save.disabled = !decided.length;
    this.output.textContent = decided.length ? `${decided.length - kept} changed, ${kept} kept, of ${this.rows.length}.` : "Nothing decided yet.";
  }

  onKey(event) {
    const row = event.target.closest(".suspect");
    const action = KEYS[event.key];
    if (!row || !action || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    event.preventDefault();
    const index = this.rows.indexOf(row);
    if (action === "keep" || action === "change") this.decide(row, action);
    if (action === "undo") this.decide(row, "");
    const step = { undo: 0, previous: -1 }[action] ?? 1;
    this.rows[Math.min(Math.max(index + step, 0), this.rows.length - 1)].focus();
  }

  /** Only one row is a tab stop, the one that was used last. */
  moveTabStop(current) {
    if (!current) return;
    for (const row of this.rows) row.tabIndex = row === current ? 0 : -1;
  }

  body() {
    const rows = this.decided();
    const changes = rows
      .filter((row) => row.dataset.decision !== "keep")
      .map((row) => {
        const change = JSON.parse(row.dataset.change);
        return row.dataset.decision === "other" ? { ...change, label: row.querySelector("select").value } : change;
      });
    const keep = rows.filter((row) => row.dataset.decision === "keep").map((row) => JSON.parse(row.dataset.keep));
    return { changes, keep };
  }

  async submit() {
    showAlert("");
    this.save.disabled = true;
    this.key ??= [...crypto.getRandomValues(new Uint32Array(4))].join("-");
    try {
      const diff = await call("POST", this.form.dataset.corrections, this.body(), { headers: { "Idempotency-Key": this.key } });
      this.saved = true;
      if (diff.corrected_from) location.assign(`/datasets/${diff.id}`);
      else location.reload(); // labels were only kept
    } catch (problem) {
      showAlert(problem.message);
      this.save.disabled = false;
    }
  }
}

/** Returns the list of suspect labels from its page. Throws an error with a message for people. */
async function fetchList(url) {
  const { page, response } = await fetchPage(url).catch(throwProblem);
  if (response.redirected) throw new Error("The session has ended. Sign in again in another tab, then try again here.");
  const list = page.getElementById("fragment");
  if (!list) throw new Error(page.querySelector("main > p").textContent); // of an error page
  return list;
}

/** Loads the list of suspect labels in place of the content of `container`, which stays if that fails. */
async function load(container, url, { focus }) {
  const decisions = [...container.querySelectorAll(".suspect")]
    .filter((row) => row.dataset.decision)
    .map((row) => ({ keep: row.dataset.keep, decision: row.dataset.decision, label: row.querySelector("select")?.value }));
  const message = "Training on four fifths of the rows, five times. This can take a minute.";
  const status = Object.assign(document.createElement("p"), { role: "status", textContent: message });
  const shown = [...container.children];
  for (const each of shown) each.hidden = true; // not removed: `beforeunload` asks the form for decisions
  container.append(status);
  container.setAttribute("aria-busy", "true");
  showAlert("");
  try {
    container.replaceChildren(...(await fetchList(url)).childNodes);
    start(container, decisions);
    if (focus) container.querySelector(".suspect")?.focus();
  } catch (problem) {
    status.remove();
    for (const each of shown) each.hidden = false;
    showAlert(problem.message);
  }
  container.removeAttribute("aria-busy");
}

function start(root, decisions = []) {
  const form = root.querySelector("form.suspects");
  if (form) new Review(form).restore(decisions);
}

for (const container of document.querySelectorAll("[data-suspects]")) {
  if ("load" in container.dataset) load(container, container.dataset.suspects, { focus: false });
  container.addEventListener("click", (event) => {
    const link = event.target.closest('a[href*="/suspects"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    load(container, link.href, { focus: true });
  });
}
if (!document.querySelector("[data-suspects]")) start(document);
