// Holds back a form that is submitted, or a button that is pressed, before its script has loaded, and
// repeats the last of these then. Forms without an action are for scripts only: the browser itself
// would load the page again, emptied. This script is not a module, so that it runs before the body is
// shown.
let repeat;

function holdBackSubmit(event) {
  if (event.target.hasAttribute("action") || event.target.method === "dialog") return;
  holdBack(event, () => event.target.requestSubmit(event.submitter));
}

function holdBackClick(event) {
  const button = event.target.closest("button");
  if (button && !(button.form && button.type === "submit")) holdBack(event, () => button.click());
}

function holdBack(event, later) {
  event.preventDefault();
  event.stopPropagation();
  repeat = later;
}

addEventListener("submit", holdBackSubmit, true);
addEventListener("click", holdBackClick, true);
document.addEventListener("DOMContentLoaded", () => { // all modules have run
  removeEventListener("submit", holdBackSubmit, true);
  removeEventListener("click", holdBackClick, true);
  repeat?.();
});
