// The form of a new job: shows the plan and validation errors before the job is submitted.
import { call } from "./api.js";
import { showFieldErrors } from "./field_errors.js";
import { commandLine, curl } from "./snippets.js";

const DEBOUNCE = 400; // ms after the last input
const form = document.getElementById("new-job");
const initial = JSON.parse(form.dataset.initial); // includes settings without a field; they are sent unchanged
const setText = (id, text) => (document.getElementById(id).textContent = text);
let timer;
let pending; // AbortController of the plan request in flight

const PARSERS = {
  number: (text) => (Number.isFinite(Number(text)) ? Number(text) : text), // the API rejects text
  size: (text) => PARSERS.number(text),
  boolean: (text) => text === "true",
  names: (text) => text.split(",").map((each) => each.trim()), // toxic,insult
  numbers: (text) => text.split(",").map((each) => PARSERS.number(each.trim())), // 1,2
  text: (text) => text,
  source: (text) => text,
};

// By method. Their fields are hidden.
const UNUSED = { linear: ["base", "base_revision", "optim", "stop", "runtime"], auto: ["stop"] };

/** Returns the body of POST /v1/jobs: the initial settings overridden by the fields. */
function readBody() {
  const body = structuredClone(initial);
  const method = form.elements["method.type"].value;
  if (body.method.type !== method) body.method = {}; // settings of another method do not apply
  setPath(body, "method.type", method);
  for (const name of UNUSED[method] ?? []) delete body[name];
  for (const field of form.querySelectorAll("[data-type]")) {
    if (!appliesTo(field)) {
      if (field.closest("[data-task]")) setPath(body, field.name, undefined); // a setting of another task
      continue;
    }
    const text = field.value.trim();
    setPath(body, field.name, text === "" ? undefined : PARSERS[field.dataset.type](text));
  }
  if (method === "lora") setPath(body, "method.targets", selectedTargets());
  return body;
}

/** Whether a field, or a group of fields, applies to the method and the task. */
function appliesTo(element) {
  const chosen = { method: form.elements["method.type"].value, task: form.elements["task.type"].value || "single_label" };
  return Object.entries(chosen).every(([name, value]) => {
    const group = element.closest(`[data-${name}]`);
    return !group || group.dataset[name].split(" ").includes(value);
  });
}

/** Returns the checked roles, or undefined if all are checked, which is the default. */
function selectedTargets() {
  const boxes = [...form.querySelectorAll('[name="method.targets"]')];
  const checked = boxes.filter((box) => box.checked).map((box) => box.value);
  return checked.length === boxes.length ? undefined : checked;
}

function setPath(body, path, value) {
  const parents = path.split(".");
  const name = parents.pop();
  if (value === undefined) {
    const parent = parents.reduce((node, key) => node?.[key], body);
    if (parent) delete parent[name];
    // Keep an empty `data.source`: without it the API would use its sample dataset.
    if (parents.length === 1 && parent && !Object.keys(parent).length) delete body[parents[0]];
    return;
  }
  parents.reduce((node, key) => (node[key] ??= {}), body)[name] = value;
}

/** Shows the planned default of each empty field as its placeholder. */
function setPlaceholders(spec) {
  for (const field of form.querySelectorAll("input[data-type]")) {
    const value = field.name.split(".").reduce((node, key) => node?.[key], spec);
    if (value !== undefined && value !== null && typeof value !== "object") field.placeholder = value;
  }
}

function formatDuration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `about ${seconds} seconds`;
  return minutes < 90 ? `about ${minutes} minutes` : `about ${(minutes / 60).toFixed(1)} hours`;
}

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function showPlan(plan) {
  const { trainable, total, exact } = plan.parameters;
  const ofTotal = trainable === total ? "" : ` of ${total.toLocaleString("en")}`;
  const share = ofTotal && ` (${((100 * trainable) / total).toPrecision(2)}%)`;
  setText("plan-parameters", `${exact ? "" : "about "}${trainable.toLocaleString("en")}${ofTotal}${share}`);
  const compared = plan.cross_validation; // null unless the method is `auto`
  for (const each of form.querySelectorAll(".plan-candidates")) each.hidden = !compared;
  if (compared) setText("plan-candidates", `${counted(compared.candidates, "candidate")}, ${counted(compared.fits, "fit")}`);
  setText("plan-time", (compared ? "at most " : "") + formatDuration(plan.estimated_seconds));
  setText("plan-queue-position", plan.queue_position === 1 ? "next" : `position ${plan.queue_position}`);
  setPlaceholders(plan.spec);
}

/** Shows the whole message above the button, and each error at its field. */
function showErrors(problem) {
  setText("form-error", problem ? problem.message : "");
  showFieldErrors(form, problem?.errors ?? []);
}

async function updatePlan() {
  pending?.abort();
  pending = new AbortController();
  try {
    showPlan(await call("POST", "/v1/jobs?dry_run=true", readBody(), { signal: pending.signal }));
    showErrors(null);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    for (const id of ["plan-parameters", "plan-candidates", "plan-time", "plan-queue-position"]) setText(id, "–");
    showErrors(problem);
  }
}

function update() {
  for (const group of form.querySelectorAll("[data-method], [data-task]")) group.hidden = !appliesTo(group);
  const body = readBody();
  setText("curl", curl("POST", "/v1/jobs", body));
  setText("command", commandLine(form, body));
  clearTimeout(timer);
  timer = setTimeout(updatePlan, DEBOUNCE);
}

form.addEventListener("input", (event) => {
  if (event.target.name === "method.type") form.elements["optim.learning_rate"].value = ""; // was meant for the other method
  update();
});

document.getElementById("check-base").addEventListener("click", async (event) => {
  const { base = form.elements.base.placeholder, base_revision } = readBody();
  event.target.disabled = true;
  setText("base-report", "Trying it…");
  try {
    const found = await call("POST", "/v1/bases/check", { base, base_revision });
    const size = `${found.blocks} blocks of width ${found.width}, ${found.parameters.toLocaleString("en")} parameters`;
    setText("base-report", `${found.model_type}, ${found.road} road: ${size}. It can be trained and served.`);
  } catch (problem) {
    setText("base-report", problem.message);
  }
  event.target.disabled = false;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearTimeout(timer);
  pending?.abort();
  const button = document.getElementById("submit");
  button.disabled = true;
  try {
    const job = await call("POST", "/v1/jobs", readBody());
    location.assign(`/jobs/${job.id}`);
  } catch (problem) {
    showErrors(problem);
    form.querySelector("[aria-invalid]")?.focus();
    button.disabled = false;
  }
});

update();
