// Curves of jobs: as the service tells them, and what comes after by the stream.
import { colour, plain } from "./plot.js";

export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const figure = (value) => Number(value.toPrecision(4)).toString();

/** The curves of one job, by part and name. */
export class Curves {
  #curves = new Map();

  /** What `GET /v1/jobs/ID/curves` has answered. */
  take({ data }) {
    for (const curve of data) this.#curves.set(`${curve.split} ${curve.name}`, curve);
  }

  get(split, name) {
    return this.#curves.get(`${split} ${name}`);
  }

  /** A point of the stream. One that a curve has already is not put in again. */
  add({ split, name, step, value }) {
    let curve = this.get(split, name);
    if (!curve) this.take({ data: [(curve = { split, name, points: 0, steps: [], values: [], low: null, high: null })] });
    if (step <= curve.steps.at(-1)) return;
    curve.points += 1;
    curve.steps.push(step);
    for (const values of [curve.values, curve.low, curve.high]) values?.push(value);
  }

  /** Whether there is something to draw. */
  has(split, name) {
    return this.get(split, name)?.values.some((value) => value !== null) ?? false;
  }

  /** Points of the longest one. */
  get longest() {
    return Math.max(0, ...[...this.#curves.values()].map((curve) => curve.steps.length));
  }
}

/** Traces for Plotly: the line, and where it was thinned the band between lowest and highest. */
export function traces(curve, { label, ink, dash, marked, symbol = "circle", format = ".4~g" }) {
  const stroke = colour(ink);
  const finite = curve.values.filter((value) => value !== null).length;
  const alone = finite === 1;
  const line = {
    x: curve.steps,
    y: curve.values,
    name: plain(label),
    mode: marked || finite < 3 ? "lines+markers" : "lines",
    line: { color: stroke, width: 2, dash },
    marker: { color: stroke, symbol, size: alone ? 9 : 6 },
    hovertemplate: `%{y:${format}}`,
  };
  if (!curve.low) return [line];
  const edge = { x: curve.steps, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [{ ...edge, y: curve.low }, { ...edge, y: curve.high, fill: "tonexty", fillcolor: `${stroke}38` }, line];
}

/** A curve in words: "Training from 0.69 at step 1 to 0.31 at step 94". */
export function inWords(curve, label, format) {
  const known = curve.values.map((value, i) => [curve.steps[i], value]).filter(([, value]) => value !== null);
  const [first, last] = [known[0], known.at(-1)];
  const at = ([step, value]) => `${format(value)} at step ${step.toLocaleString("en")}`;
  return known.length === 1 ? `${label} ${at(last)}` : `${label} from ${at(first)} to ${at(last)}`;
}

/** Axes that all pictures of curves share; `upto` is where the steps will end. */
export function axes(format, upto) {
  // Around a single point, automatic ranges go below 0 % and above 100 %.
  const bounds = format?.endsWith("%") && { minallowed: -0.02, maxallowed: 1.02 };
  return {
    xaxis: { title: { text: "step" }, rangemode: "tozero", ...(upto && { range: [0, upto] }) },
    yaxis: { tickformat: format, exponentformat: "e", ...bounds },
    hovermode: "x unified",
  };
}
