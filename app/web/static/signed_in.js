// Keeps the page token, which no other page holds, and goes on to where the person wanted to go.
const { token } = document.getElementById("continue").dataset;
try {
  localStorage.setItem("page-token", token);
} catch {
  // A browser that keeps nothing can read.
}
location.replace(document.getElementById("continue").href);
