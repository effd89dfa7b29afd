// Tells when the page was first painted and when the largest thing on it was, in ms.
const QUIET = 1000; // ms without a larger one
const told = {};
let timer;

function tell(name, entries) {
  told[name] = entries.at(-1).startTime;
  clearTimeout(timer);
  timer = setTimeout(() => { window.told = told; }, QUIET);
}

new PerformanceObserver((list) => {
  const first = list.getEntriesByName("first-contentful-paint");
  if (first.length) tell("first_paint", first);
}).observe({ type: "paint", buffered: true });
new PerformanceObserver((list) => tell("largest_paint", list.getEntries())).observe({ type: "largest-contentful-paint", buffered: true });
