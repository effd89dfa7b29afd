// Applies the filters of a list as they change, without a submit button.
const DEBOUNCE = 350; // ms after the last input

const form = document.querySelector("[data-filters]");
let timer;

function applyFilters() {
  const parameters = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const url = `${location.pathname}${parameters.size ? `?${parameters}` : ""}`;
  if (url === location.pathname + location.search) return;
  history.replaceState(null, "", url);
  import("./live.js").then(({ refresh }) => refresh());
}

/** Whether a field differs from what the server rendered. */
const isChanged = ({ options, value, defaultValue, checked, defaultChecked }) =>
  options ? !([...options].find((option) => option.defaultSelected) ?? options[0]).selected : value !== defaultValue || checked !== defaultChecked;

form?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(applyFilters, DEBOUNCE);
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  applyFilters();
});
if ([...(form?.elements ?? [])].some(isChanged)) applyFilters(); // changed before this script had loaded
