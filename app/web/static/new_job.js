// The form of a new job: says before the submit what the job would take and what is wrong with it.
import { call } from "./api.js";
import { commandLine, curl } from "./spoken.js";

const WAIT = 400; // ms after the last key
const form = document.getElementById("new-job");
const given = JSON.parse(form.dataset.given); // settings that no field shows are sent as they were
const show = (id, text) => (document.getElementById(id).textContent = text);
let timer;
let asking; // AbortController of the plan that is asked for

const READ = {
  number: (text) => (Number.isFinite(Number(text)) ? Number(text) : text), // the service refuses the text
  size: (text) => READ.number(text),
  numbers: (text) => text.split(",").map((each) => READ.number(each.trim())), // 1,2
  text: (text) => text,
  source: (text) => text,
};

/** The body of POST /v1/jobs: what is given and what the fields say. */
function body() {
  const said = structuredClone(given);
  const method = form.elements["method.type"].value;
  if (said.method.type !== method) said.method = {}; // settings of another method say nothing about this one
  put(said, "method.type", method);
  if (method === "linear") for (const name of ["base", "base_revision", "optim", "stop", "runtime"]) delete said[name]; // it has no use for them
  for (const field of form.querySelectorAll("[data-kind]")) {
    const part = field.closest("[data-method]");
    if (part && !concerns(part, method)) continue;
    const text = field.value.trim();
    put(said, field.name, text === "" ? undefined : READ[field.dataset.kind](text));
  }
  if (method === "lora") put(said, "method.targets", targets());
  return said;
}

/** Whether fields are shown for a method: they name those that have a use for them. */
function concerns(part, method) {
  return part.dataset.method.split(" ").includes(method);
}

/** Roles that are ticked; undefined where all are, which is the default. */
function targets() {
  const boxes = [...form.querySelectorAll('[name="method.targets"]')];
  const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
  return ticked.length === boxes.length ? undefined : ticked;
}

function put(said, place, value) {
  const path = place.split(".");
  const name = path.pop();
  if (value === undefined) {
    const inside = path.reduce((part, step) => part?.[step], said);
    if (inside) delete inside[name];
    // Not so a source given part by part: without one the service would take its sample.
    if (path.length === 1 && inside && !Object.keys(inside).length) delete said[path[0]];
    return;
  }
  path.reduce((part, step) => (part[step] ??= {}), said)[name] = value;
}

/** The default of each empty field, as the plan has decided it. */
function placeholders(spec) {
  for (const field of form.querySelectorAll("input[data-kind]")) {
    const value = field.name.split(".").reduce((part, step) => part?.[step], spec);
    if (value !== undefined && value !== null && typeof value !== "object") field.placeholder = value;
  }
}

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `about ${seconds} seconds`;
  return minutes < 90 ? `about ${minutes} minutes` : `about ${(minutes / 60).toFixed(1)} hours`;
}

function tellPlan(plan) {
  const { trainable, total, exact } = plan.parameters;
  const of = trainable === total ? "" : ` of ${total.toLocaleString("en")}`;
  const share = of && ` (${((100 * trainable) / total).toPrecision(2)} %)`;
  show("plan-parameters", `${exact ? "" : "about "}${trainable.toLocaleString("en")}${of} parameters${share}`);
  show("plan-time", duration(plan.estimated_seconds));
  show("plan-place", plan.queue_position === 1 ? "next" : `place ${plan.queue_position}`);
  placeholders(plan.spec);
}

/** Each fault at its field; those of no field, and all of them in words, above the button. */
function tellFaults(problem) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const old of form.querySelectorAll(".field .error")) old.remove();
  show("faults", problem ? problem.message : "");
  for (const { at, message } of problem?.errors ?? []) {
    const field = form.querySelector(`#${CSS.escape(`field-${at.replace(/\.\d+$/, "").replace(/[._]/g, "-")}`)}`);
    if (!field) continue;
    field.closest("details")?.setAttribute("open", "");
    field.querySelector("input, select")?.setAttribute("aria-invalid", "true");
    const told = document.createElement("p");
    told.className = "error";
    told.id = field.id.replace("field-", "fault-"); // named by the field's aria-describedby
    told.textContent = message;
    field.append(told);
  }
}

async function plan() {
  asking?.abort();
  asking = new AbortController();
  try {
    tellPlan(await call("POST", "/v1/jobs?dry_run=true", body(), { signal: asking.signal }));
    tellFaults(null);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    for (const id of ["plan-parameters", "plan-time", "plan-place"]) show(id, "–");
    tellFaults(problem);
  }
}

function update() {
  const method = form.elements["method.type"].value;
  for (const part of form.querySelectorAll("[data-method]")) part.hidden = !concerns(part, method);
  const said = body();
  show("curl", curl("POST", "/v1/jobs", said));
  show("command", commandLine(form, said));
  clearTimeout(timer);
  timer = setTimeout(plan, WAIT);
}

form.addEventListener("input", (event) => {
  if (event.target.name === "method.type") form.elements["optim.learning_rate"].value = ""; // suited the other one
  update();
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearTimeout(timer);
  asking?.abort();
  const button = document.getElementById("submit");
  button.disabled = true;
  try {
    const job = await call("POST", "/v1/jobs", body());
    location.assign(`/jobs/${job.id}`);
  } catch (problem) {
    tellFaults(problem);
    form.querySelector("[aria-invalid]")?.focus();
    button.disabled = false;
  }
});

update();
