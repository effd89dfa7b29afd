// Plotly charts in the colors of the page. Callers must escape texts with `escapeMarkup`.

const darkMode = matchMedia("(prefers-color-scheme: dark)");
const figures = new Map(); // element → figure

// Plotly takes a second to start on a slow machine; the page loads its data in the meantime.
const plotly = new Promise((resolve, reject) => {
  if (window.Plotly) resolve(window.Plotly);
  const script = document.getElementById("plotly");
  script?.addEventListener("load", () => resolve(window.Plotly));
  script?.addEventListener("error", reject);
});

/** Returns the current value of a color variable of app.css. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function template() {
  const axis = { gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, automargin: true, title: { standoff: 12 } };
  return {
    data: { heatmap: [{ textfont: { color: color("--text") } }] },
    layout: {
      font: { color: color("--text"), family: getComputedStyle(document.documentElement).fontFamily, size: 13 },
      colorway: ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"].map(color),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      coloraxis: { colorscale: [[0, color("--worst")], [1, color("--best")]] },
      annotationdefaults: { bgcolor: color("--background") },
      shapedefaults: { line: { color: color("--line") } },
      hoverlabel: { bgcolor: color("--background"), bordercolor: color("--line"), font: { color: color("--text") } },
      margin: { t: 8, r: 8, b: 40, l: 48 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

/** Draws `{data, layout}` into an element with an `aria-label`. SVG traces only: WebGL traces need eval. */
export async function draw(element, figure) {
  figures.set(element, figure);
  const Plotly = await plotly;
  if (figures.get(element) !== figure) return; // replaced by a newer figure
  if (!element.data) element.replaceChildren(); // removes the inline SVG curve
  const layout = { ...figure.layout, template: template(), dragmode: false };
  await Plotly.react(element, figure.data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage"]],
  });
  moveLabel(element);
}

/** Moves the label to the SVG image, because an element with role="img" must not contain buttons. */
function moveLabel(element) {
  const label = element.getAttribute("aria-label");
  const [image, ...others] = element.querySelectorAll(".main-svg");
  for (const svg of others) svg.setAttribute("aria-hidden", "true");
  if (!label) return;
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", label);
  element.removeAttribute("role");
  element.removeAttribute("aria-label");
}

/** Escapes what Plotly would interpret as markup. */
export function escapeMarkup(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

darkMode.addEventListener("change", () => figures.forEach((figure, element) => draw(element, figure)));
