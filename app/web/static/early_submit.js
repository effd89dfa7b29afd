// Holds back a form that is submitted before its script has loaded, and submits it then. Forms
// without an action are for scripts only: the browser itself would load the page again, emptied.
// This script is not a module, so that it runs before the body is shown.
let early; // the last such event

function holdBack(event) {
  if (event.target.hasAttribute("action") || event.target.method === "dialog") return;
  event.preventDefault();
  event.stopPropagation();
  early = event;
}

addEventListener("submit", holdBack, true);
document.addEventListener("DOMContentLoaded", () => { // all modules have run
  removeEventListener("submit", holdBack, true);
  early?.target.requestSubmit(early.submitter);
});
