// One sweep: draws its pictures when its results have changed, and makes a cell a model.
import { confirmed } from "./actions.js";
import { call } from "./api.js";
import { draw } from "./plot.js";

const SECONDS = 15; // between two drawings: they cost the service more than the rest of the page
const mark = document.getElementById("results");
const pictures = document.getElementById("pictures");
let shown; // version of the results that are drawn
let drawnAt = -Infinity;
let drawing = false;

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** The part of the page that holds a picture; the same one each time, so that nothing jumps. */
function place(picture) {
  const id = picture.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  const there = document.getElementById(`picture-${id}`);
  const section = there?.closest("section") ?? element("section", picture.wide ? { class: "all" } : {});
  if (!there) {
    const figure = element("figure");
    const frame = element("div", picture.wide ? { class: "wide", role: "region", "aria-label": `Picture: ${picture.title}`, tabindex: "0" } : {});
    frame.append(element("div", { class: "drawing", id: `picture-${id}`, role: "img" }));
    figure.append(element("figcaption"), frame);
    section.append(element("h3", {}, picture.title), figure);
  }
  section.querySelector("figcaption").textContent = picture.caption;
  section.querySelector(".drawing").setAttribute("aria-label", picture.alt);
  return section;
}

async function drawAnew() {
  const { version } = mark.dataset; // empty while no cell has run to its end
  document.getElementById("promotion").hidden = !version;
  if (drawing || !version || version === shown || performance.now() - drawnAt < SECONDS * 1000) return;
  drawing = true;
  try {
    const found = await call("GET", pictures.dataset.from);
    const places = found.map(place);
    if (found.length) pictures.replaceChildren(...places);
    for (const [at, picture] of found.entries()) await draw(places[at].querySelector(".drawing"), picture.figure);
    shown = version;
  } catch {
    // It is tried again; the page itself says when the service does not answer.
  } finally {
    drawnAt = performance.now();
    drawing = false;
  }
}

document.addEventListener("live", drawAnew);
drawAnew();

const form = document.getElementById("promote");

function filled(text, values) {
  return text.replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);
}

function tellFaults(problem) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const old of form.querySelectorAll(".field .error")) old.remove();
  let told = false;
  for (const { at, message } of problem?.errors ?? []) {
    const field = document.getElementById(`field-${at}`);
    if (!field) continue;
    field.querySelector("input").setAttribute("aria-invalid", "true");
    field.append(element("p", { class: "error" }, message));
    told = true;
  }
  form.querySelector("[data-faults]").textContent = told ? "" : (problem?.message ?? "");
  form.querySelector("[aria-invalid]")?.focus();
}

form.addEventListener("input", (event) => {
  if (event.target.name === "cell") form.querySelector('[name="which"][value=""]').checked = true;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = Object.fromEntries(new FormData(form));
  const body = { model: typed.model.trim(), cell: Number(typed.which || typed.cell) || null, alias: typed.alias.trim() || null };
  if (!body.cell) return tellFaults({ message: "Say which cell." });
  const question = form.dataset[body.alias ? "confirmAlias" : "confirm"];
  if (!(await confirmed(filled(question, body), "Promote"))) return;
  try {
    const [method, path] = form.dataset.send.split(" ");
    location.assign(filled(form.dataset.then, await call(method, path, body)));
  } catch (problem) {
    tellFaults(problem);
  }
});
