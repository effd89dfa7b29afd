// Pictures of jobs side by side. Those that still run are read again whenever the page is.
import { tell } from "./actions.js";
import { call } from "./api.js";
import { axes, Curves, figure, inWords, percent, traces } from "./curves.js";
import { colour, draw, plain } from "./plot.js";

const POINTS = 500; // of a curve
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"]; // those of the table
const DASHES = ["solid", "dash", "dot", "dashdot"]; // once inks and symbols are used up
const place = (id) => document.getElementById(id);
const CHARTS = [
  { id: "accuracy", part: "validation", name: "accuracy", marked: true, words: percent, ticks: ".0%", format: ".1%" },
  { id: "loss", part: "validation", name: "loss", marked: true, words: figure },
  { id: "training", part: "train", name: "loss", words: figure },
];

const curves = new Map(); // id of a job → Curves
const read = new Set(); // those that had ended when they were read

const jobs = () => JSON.parse(place("shown").dataset.shown);
const look = (i) => {
  const n = i % SYMBOLS.length;
  return { ink: `--series-${n + 1}`, symbol: SYMBOLS[n], dash: DASHES[Math.floor(i / SYMBOLS.length)] };
};

async function update() {
  try {
    await Promise.all(jobs().filter(({ id }) => !read.has(id)).map(take));
    paint();
  } catch (problem) {
    if (problem.status) tell(problem.message);
  }
}

async function take({ id, ended }) {
  const fresh = new Curves();
  fresh.take(await call("GET", `/v1/jobs/${id}/curves?points=${POINTS}&name=loss&name=accuracy`));
  curves.set(id, fresh);
  if (ended) read.add(id);
}

function paint() {
  const all = jobs();
  const lines = CHARTS.map(({ part, name }) => all.flatMap((job, i) => (curves.get(job.id)?.has(part, name) ? [[job, i]] : [])));
  const known = all.filter(({ accuracy }) => accuracy);
  show("accuracies", known.length);
  CHARTS.forEach(({ id }, i) => show(id, lines[i].length)); // before any is drawn: all share the width
  place("no-curves").hidden = lines.some((each) => each.length);
  if (known.length) drawAccuracies(all);
  CHARTS.forEach((chart, i) => lines[i].length && drawCurves(chart, lines[i]));
}

const show = (id, there) => (place(id).closest("figure").hidden = !there);

function drawCurves(chart, lines) {
  const told = lines.map(([job, i]) => [curves.get(job.id).get(chart.part, chart.name), job.name, look(i)]);
  const data = told.flatMap(([curve, label, style]) => traces(curve, { label, ...style, marked: chart.marked, format: chart.format }));
  place(chart.id).setAttribute("aria-label", told.map(([curve, label]) => inWords(curve, label, chart.words)).join("; "));
  draw(place(chart.id), { data, layout: { ...axes(chart.ticks), showlegend: false } });
}

function drawAccuracies(all) {
  const data = all.flatMap(({ name, accuracy }, i) => {
    if (!accuracy) return [];
    const [value, low, high] = accuracy;
    const { ink, symbol } = look(i);
    const stroke = colour(ink);
    return [{
      x: [value],
      y: [i],
      name: plain(name),
      mode: "markers",
      marker: { color: stroke, symbol, size: 10 },
      error_x: { type: "data", array: [high - value], arrayminus: [value - low], color: stroke, thickness: 2, width: 6 },
      hovertemplate: `%{x:.1%} (${percent(low)} to ${percent(high)})`,
    }];
  });
  const names = all.map(({ name }) => plain(name.length > 24 ? `${name.slice(0, 23)}…` : name));
  const layout = {
    showlegend: false,
    xaxis: { tickformat: ".0%" },
    yaxis: { tickvals: all.map((_, i) => i), ticktext: names, range: [all.length - 0.5, -0.5], showgrid: false },
  };
  place("accuracies").setAttribute("aria-label", all.filter(({ accuracy }) => accuracy)
    .map(({ name, accuracy: [value, low, high] }) => `${name} ${percent(value)}, between ${percent(low)} and ${percent(high)}`).join("; "));
  draw(place("accuracies"), { data, layout });
}

document.addEventListener("live", update);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
update();
