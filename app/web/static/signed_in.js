// Stores the CSRF token, which only the sign-in response contains, and continues to the requested page.
const { token } = document.getElementById("continue").dataset;
try {
  localStorage.setItem("page-token", token);
} catch {
  // Storage is disabled: the session stays read-only.
}
location.replace(document.getElementById("continue").href);
