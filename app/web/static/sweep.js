// One sweep: draws its charts when results have changed, and promotes a trial to a model version.
import { confirmed } from "./actions.js";
import { call } from "./api.js";
import { showFieldErrors } from "./field_errors.js";
import { draw } from "./plot.js";

const DRAW_INTERVAL = 15; // seconds: charts are the most expensive part of the page for the service
const versionElement = document.getElementById("charts-version");
const charts = document.getElementById("charts");
let drawnVersion; // version of the results that are drawn
let drawnAt = -Infinity;
let isDrawing = false;

function element(name, attributes = {}, text = "") {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  created.textContent = text;
  return created;
}

/** Returns the section of a chart. Sections are reused, so that the page does not jump. */
function chartSection(chart) {
  const id = `chart-${chart.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}`;
  const existing = document.getElementById(id);
  const section = existing?.closest("section") ?? element("section", chart.wide ? { class: "full-width" } : {});
  if (!existing) {
    const figure = element("figure");
    const frame = element("div", chart.wide ? { class: "scroll-x", role: "region", "aria-label": `Chart: ${chart.title}`, tabindex: "0" } : {});
    frame.append(element("div", { class: "chart-area", id, role: "img" }));
    figure.append(element("figcaption"), frame);
    section.append(element("h3", {}, chart.title), figure);
  }
  section.querySelector("figcaption").textContent = chart.caption;
  section.querySelector(".chart-area").setAttribute("aria-label", chart.alt);
  return section;
}

async function drawCharts() {
  const { version } = versionElement.dataset; // empty until a trial has run all of its steps
  document.getElementById("promote-panel").hidden = !version;
  if (isDrawing || !version || version === drawnVersion || performance.now() - drawnAt < DRAW_INTERVAL * 1000) return;
  isDrawing = true;
  try {
    const found = await call("GET", charts.dataset.url);
    const sections = found.map(chartSection);
    if (found.length) charts.replaceChildren(...sections);
    for (const [i, chart] of found.entries()) await draw(sections[i].querySelector(".chart-area"), chart.figure);
    drawnVersion = version;
  } catch {
    // The next refresh tries again; live.js reports an unreachable service.
  } finally {
    drawnAt = performance.now();
    isDrawing = false;
  }
}

document.addEventListener("live", drawCharts);
drawCharts();

const form = document.getElementById("promote-form");

function fillTemplate(text, values) {
  return text.replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);
}

function showErrors(problem) {
  const errors = problem?.errors ?? [];
  const isAtField = showFieldErrors(form, errors).length < errors.length;
  form.querySelector("[data-form-error]").textContent = isAtField ? "" : (problem?.message ?? "");
  form.querySelector("[aria-invalid]")?.focus();
}

form.addEventListener("input", (event) => {
  if (event.target.name === "trial") form.querySelector('[name="which"][value=""]').checked = true;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const values = Object.fromEntries(new FormData(form));
  const body = { model: values.model.trim(), trial: Number(values.which || values.trial) || null, alias: values.alias.trim() || null };
  if (!body.trial) return showErrors({ message: "Enter a trial number." });
  const question = form.dataset[body.alias ? "confirmAlias" : "confirm"];
  if (!(await confirmed(fillTemplate(question, body), "Promote"))) return;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const [method, path] = form.dataset.request.split(" ");
    location.assign(fillTemplate(form.dataset.redirect, await call(method, path, body)));
  } catch (problem) {
    showErrors(problem);
    button.disabled = false;
  }
});
