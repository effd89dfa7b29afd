"use strict";
// Draws the pictures in the colours of the page, and again when it turns dark or light.
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function template() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, title: { standoff: 14 } };
  return {
    data: { heatmap: [{ textfont: { color: colour("--ink") } }] },
    layout: {
      font: { color: colour("--ink"), family: style.fontFamily, size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      coloraxis: { colorscale: [[0, colour("--worst")], [1, colour("--best")]] },
      annotationdefaults: { bgcolor: colour("--page") },
      shapedefaults: { line: { color: colour("--line") } },
      hoverlabel: { bgcolor: colour("--page"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

function draw() {
  figures.forEach((figure, at) => {
    const layout = { ...figure.layout, template: template(), dragmode: false };
    Plotly.react(`picture-${at + 1}`, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: "hover",
      modeBarButtons: [["toImage"]],
    });
  });
}

draw();
dark.addEventListener("change", draw);
