// Filters of a list hold at once: no button has to be pressed.
const WAIT = 350; // ms after the last key

const form = document.querySelector("[data-filters]");
let timer;

function apply() {
  const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const address = `${location.pathname}${wanted.size ? `?${wanted}` : ""}`;
  if (address === location.pathname + location.search) return;
  history.replaceState(null, "", address);
  import("./live.js").then(({ refresh }) => refresh());
}

/** What this page was made with no longer stands there. */
const changed = ({ options, value, defaultValue, checked, defaultChecked }) =>
  options ? !([...options].find((option) => option.defaultSelected) ?? options[0]).selected : value !== defaultValue || checked !== defaultChecked;

form?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(apply, WAIT);
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
if ([...(form?.elements ?? [])].some(changed)) apply(); // typed before this script was there
