// Tells of the curves of a job, in ms from the navigation: when the page had drawn them without any
// script (`seen`), and when the last chart of Plotly stood in their place (`interactive`).
const SKETCH = ".sketch path";
const CHART = ".js-plotly-plot .scatterlayer path.js-line";
const QUIET = 1000; // ms without another curve

window.told = new Promise((settle) => {
  let seen;
  let interactive;
  let curves = 0;
  const look = (now) => {
    if (document.querySelector(SKETCH)) seen ??= now;
    const drawn = document.querySelectorAll(CHART).length;
    if (drawn > curves) [curves, interactive] = [drawn, now];
    if (curves && now - interactive > QUIET) settle({ seen, interactive });
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
